"""Run the whole path on one machine: module, SavedModel, server, vectors (for `make demo`)."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from local_stack import (
    MODEL,
    READY_TIMEOUT,
    ROOT,
    StackError,
    end_as_by_ctrl_c,
    is_stand_in,
    prepared,
    say,
    serving,
)
from PIL import Image

import featurewire


def encoded(image: Image.Image, image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def variants(photo: Path) -> Iterator[tuple[str, bytes]]:
    """The photo, a crop of it and re-encoded copies, which a search should find together."""
    yield photo.name, photo.read_bytes()
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    crop = image.crop((width // 10, height // 10, width - width // 10, height - height // 10))
    yield f"{photo.stem}, cropped to 80 %", encoded(crop, "JPEG", quality=90)
    yield f"{photo.stem}, JPEG quality 30", encoded(image, "JPEG", quality=30)
    yield f"{photo.stem}, as PNG", encoded(image, "PNG")


def table(names: list[str], vectors: np.ndarray, version: int) -> None:
    """Print one row per image: its first values, its nearest neighbour and their cosine."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1.0)
    wide = max(len(name) for name in names)
    say(
        f"{'file':<{wide}}  {'dim':>5}  {'version':>7}  {'first values':<22}  "
        f"{'nearest neighbour':<{wide}}  {'cosine':>7}"
    )
    for row, name in enumerate(names):
        nearest = int(np.argmax(cosines[row]))
        first = " ".join(f"{value:6.3f}" for value in vectors[row, :3])
        say(
            f"{name:<{wide}}  {vectors.shape[1]:>5}  {version:>7}  {first:<22}  "
            f"{names[nearest]:<{wide}}  {cosines[row, nearest]:>7.4f}"
        )


def embedded(client: featurewire.Client, photos: list[Path]) -> list[featurewire.Result[str]]:
    """A result for each variant of each photo; on a terminal, shows the count."""
    images = [variant for photo in photos for variant in variants(photo)]
    results = []
    for result in client.stream((name, data) for name, data in images):
        results.append(result)
        if sys.stderr.isatty():
            print(
                f"\r{len(results)} of {len(images)} vectors", end="\r", file=sys.stderr, flush=True
            )
    return results


def demo(module: str, photos: list[Path]) -> None:
    base_path = prepared(module)
    with (
        # Warming up every batch size would take longer than embedding these few photos.
        serving(base_path, "--enable_model_warmup=false") as target,
        featurewire.Client(target, model=MODEL) as client,
    ):
        client.wait_until_ready(READY_TIMEOUT)
        stand_in = is_stand_in(client)
        started = time.monotonic()
        results = embedded(client, photos)
        seconds = time.monotonic() - started
    good = [result for result in results if result.embedding is not None]
    for result in results:
        if result.error is not None:
            say(f"{result.key}: {result.error}")
    if not good:
        raise StackError("no photo gave a vector")
    say("")
    vectors = np.stack([np.asarray(result.embedding) for result in good])
    table([str(result.key) for result in good], vectors, good[0].embedding.version)
    say(f"\n{len(good)} vectors in {seconds:.1f} s through gRPC; the server is stopped.")
    if stand_in:
        say(
            "The model is the stand-in: the real network with random weights. Shape, cost and\n"
            "determinism are right, but the neighbours are meaningless. For learned weights, run\n"
            "this with access to the hub, or name a module: make demo MODULE=<handle or path>"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--module", default="auto")
    parser.add_argument("--photos", type=Path, default=ROOT / "samples" / "photos")
    arguments = parser.parse_args()
    end_as_by_ctrl_c()
    photos = sorted(
        photo
        for photo in arguments.photos.glob("*")
        if photo.suffix.lower() in {".jpg", ".jpeg", ".png", ".gif", ".bmp"}
    )
    try:
        if not photos:
            raise StackError(f"no photos in {arguments.photos}; name a folder with PHOTOS=")
        demo(arguments.module, photos)
    except (StackError, featurewire.FeaturewireError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
