"""EfficientNet-Lite0 and Lite1 as two versions of one model, with a bridge, and their pictures.

    python -m bench._learned_pair FOLDER

writes the files of a `Pair` to FOLDER, for benchmarks that run without TensorFlow.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench._photos import SAMPLES
from tests.support.pictures import NO_STAMPS, on_white, stamps

LEARNED = 500
"""Number of pictures to fit the bridge with; the others test it."""
CROPS = 2
"""Crops of each test picture, used as queries."""
BATCH = 16


def pictures() -> list[bytes]:
    """The stamps and the sample photos as JPEGs without duplicates, in a fixed random order."""
    found = dict.fromkeys([on_white(path) for path in stamps()])
    if not found:
        raise SystemExit(f"{NO_STAMPS}: apt-get install tuxpaint-stamps-default")
    found |= dict.fromkeys(path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg")))
    each = [*found]
    return [each[place] for place in np.random.default_rng(0).permutation(len(each))]


@dataclass(frozen=True)
class Pair:
    """Version 1 is Lite0, version 2 is Lite1 with a bridge to version 1; and test pictures."""

    folder: Path

    @property
    def base_path(self) -> Path:
        return self.folder / "lite"

    def space(self, version: int) -> str:
        about = self.base_path / str(version) / "assets.extra" / "featurewire.json"
        return str(json.loads(about.read_text())["vector_space"])

    def pictures(self) -> list[Path]:
        return sorted((self.folder / "new").glob("*.jpg"))

    def crops(self) -> list[Path]:
        """The crops of each picture, in the order of the pictures."""
        return sorted((self.folder / "crops").glob("*.jpg"))

    def vectors(self) -> dict[str, np.ndarray]:
        """`old`, `new` and `bridged` vectors of each picture and its crops.

        Each is float32 `[N, 1 + CROPS, D]`.
        """
        with np.load(self.folder / "vectors.npz") as file:
            return dict(file)


def write_pair(folder: Path) -> Pair:
    """Write all files of a pair to `folder`, which takes a minute or two."""
    from featurewire_exporter.quality.pictures import views

    pair, every = Pair(folder), pictures()
    write(every[:LEARNED], folder / "learned")
    write(every[LEARNED:], folder / "new")
    for path in pair.pictures():
        crops = list(views(path.read_bytes(), 1 + CROPS))[1:]
        write(crops, folder / "crops", prefix=f"{path.stem}-")
    export(folder, "lite0")
    bridge = ["--bridge-from", pair.base_path / "1", "--bridge-images", folder / "learned"]
    print(export(folder, "lite1", *bridge))
    crop = iter(pair.crops())
    files = [[path, *(next(crop) for _ in range(CROPS))] for path in pair.pictures()]
    images = [path.read_bytes() for row in files for path in row]
    wanted = {"old": (1, "serving_default"), "new": (2, "serving_default")}
    wanted["bridged"] = (2, f"bridge_{pair.space(1)}")
    made = {
        name: embed(pair.base_path / str(version), signature, images)
        for name, (version, signature) in wanted.items()
    }
    shape = (len(files), 1 + CROPS, -1)
    by_name: dict[str, Any] = {name: rows.reshape(shape) for name, rows in made.items()}
    np.savez(folder / "vectors.npz", **by_name)
    return pair


def write(images: Sequence[bytes], folder: Path, prefix: str = "") -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        (folder / f"{prefix}{number:03}.jpg").write_bytes(image)


def export(folder: Path, name: str, *options: object) -> str:
    """Export `lite0` or `lite1` as the next version, and return the command's bridge report."""
    from tests.support.learned import write_learned_module

    module = write_learned_module(folder / name, name)
    done = subprocess.run(
        [sys.executable, "-m", "featurewire_exporter", "export", str(module), str(folder / "lite")]
        + [str(option) for option in options],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("["))


def embed(version: Path, signature: str, images: Sequence[bytes]) -> np.ndarray:
    """float32 `[N, D]`, computed in this process."""
    from featurewire_exporter.version.artifact import ArtifactSession

    with ArtifactSession(version) as session:
        batches = [
            session.run(signature, image_bytes=np.array(images[start : start + BATCH], object))
            for start in range(0, len(images), BATCH)
        ]
    return np.concatenate([batch["features"] for batch in batches])


if __name__ == "__main__":
    write_pair(Path(sys.argv[1]))
