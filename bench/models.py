"""The models that benchmarks measure, made once in `build/bench`.

Each model is made in a separate process, because TensorFlow never returns its memory.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent import futures
from functools import cache
from pathlib import Path
from typing import Any

from bench._published import ROOT
from featurewire.manifest import FILE
from tests.support.pictures import STAMPS

FOLDER = ROOT / "build" / "bench"


def make(*, quick: bool) -> None:
    """Make the models, two at a time, because most of the work is single-threaded.

    A quick run also loads the slowest model in the meantime, because its parts share this process.
    """
    with futures.ThreadPoolExecutor(2) as pool:
        first = [pool.submit(module), pool.submit(learned)]
        first[0].result()
        last = [pool.submit(stand_in if quick else onnx)]
        last.append(pool.submit(loaded, module()) if quick else pool.submit(plain))
        for each in first + last:
            each.result()


def stand_in() -> Path:
    """The newest version of the stand-in, the full-size network with random weights."""
    return _exported(module, FOLDER / "stand-in")


def stand_in_with(precision: str) -> Path | None:
    """A version of the stand-in for this precision.

    None for int8 until `python -m bench.models` has made it, which takes minutes.
    """
    return stand_in() if precision != "int8" else newest(FOLDER / "stand-in-int8")


def stand_in_for_any() -> Path | None:
    """An 8-bit version of the stand-in that also runs on CPUs without VNNI."""
    version = stand_in_with("int8")
    if version:
        about = json.loads((version / FILE).read_text())
        if about["int8"]["any_processor"]:
            return version
    return newest(FOLDER / "stand-in-int8-any")


def onnx() -> Path:
    """The network of `stand_in` as an ONNX model."""
    return made(
        FOLDER / "network.onnx",
        lambda file: _run("-m", "bench._openvino_network", str(stand_in()), file),
    )


def plain() -> Path:
    """A version as TensorFlow Serving would serve it without this project."""
    return made(
        FOLDER / "plain" / "1",
        lambda version: _run("-m", "bench._plain_module", str(module()), version),
    )


def module() -> Path:
    """The stand-in's module itself, in TF1 Hub format."""
    code = (
        "import sys, pathlib; "
        "from featurewire_exporter.source.stand_in import write_stand_in as w; "
    )
    return made(
        FOLDER / "stand-in-module",
        lambda folder: _run("-c", code + "w(pathlib.Path(sys.argv[1]))", folder),
    )


def learned_module() -> Path:
    """EfficientNet-Lite0 with its learned weights, a TF2 SavedModel."""
    code = "import sys, pathlib; from tests.support.learned import write_learned_module as w; "
    return made(
        FOLDER / "lite0-module",
        lambda folder: _run("-c", code + "w(pathlib.Path(sys.argv[1]))", folder),
    )


def learned() -> Path:
    """The newest version exported from `learned_module`."""
    return _exported(learned_module, FOLDER / "lite0")


def learned_with(precision: str) -> Path | None:
    """A version of `learned_module` for this precision, or None; see `stand_in_with`."""
    return learned() if precision != "int8" else newest(FOLDER / "lite0-int8")


@cache
def loaded(folder: Path) -> Any:
    """What TensorFlow loads from a module's folder; of a TF1 Hub module the inference variant."""
    import tensorflow as tf

    tags: list[str] | None = [] if (folder / "tfhub_module.pb").exists() else None
    return tf.saved_model.load(str(folder), tags=tags)


def _exported(module: Callable[[], Path], base_path: Path, *options: str) -> Path:
    if not newest(base_path):
        _run("-m", "featurewire_exporter", "export", str(module()), str(base_path), *options)
    version = newest(base_path)
    assert version is not None
    return version


def newest(base_path: Path) -> Path | None:
    """The version directory with the highest number."""
    entries = base_path.iterdir() if base_path.is_dir() else ()
    versions = [entry for entry in entries if entry.name.isdigit()]
    return max(versions, key=lambda entry: int(entry.name), default=None)


def made(path: Path, make: Callable[[str], None]) -> Path:
    """Return `path`; if it does not exist, `make` writes it, and a rename puts it there whole."""
    if not path.exists():
        making = path.with_name(f"{path.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        make(str(making))
        making.rename(path)
    return path


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


if __name__ == "__main__":
    pictures = ["--calibration-images", str(STAMPS)] if STAMPS.is_dir() else []
    print(_exported(learned_module, FOLDER / "lite0-int8", "--int8", *pictures))
    print(_exported(module, FOLDER / "stand-in-int8", "--int8", *pictures))
    if stand_in_for_any() is None:
        options = ["--int8", "--int8-any-processor", *pictures]
        print(_exported(module, FOLDER / "stand-in-int8-any", *options))
