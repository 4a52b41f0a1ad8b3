"""The models that benchmarks measure, made once into `build/bench`.

Each is made by a process of its own: TensorFlow keeps the memory that it takes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench._plain_module import plain_module
from bench._published import ROOT
from tests.support.pictures import STAMPS

FOLDER = ROOT / "build" / "bench"


def stand_in() -> Path:
    """The newest version of the stand-in: the network of the project with random weights."""
    return _exported("stand-in", FOLDER / "stand-in")


def stand_in_with(precision: str) -> Path | None:
    """A version of the stand-in that can be computed in `precision`.

    One in 8 bits takes minutes to make: `python -m bench.models` does. None before that.
    """
    return stand_in() if precision != "int8" else newest(FOLDER / "stand-in-int8")


def onnx() -> Path:
    """The network of `stand_in` as an ONNX model."""
    file = FOLDER / "network.onnx"
    if not file.is_file():
        making = file.with_suffix(".making")
        _run("-m", "bench._openvino_network", str(stand_in()), str(making))
        making.rename(file)
    return file


def plain() -> Path:
    """The version that TensorFlow Serving would serve without this project."""
    return plain_module(FOLDER / "plain") / "1"


def module() -> Path:
    """The stand-in's module itself, in TF1 Hub format."""
    plain()
    return FOLDER / "plain-module"


def learned_module() -> Path:
    """EfficientNet-Lite0 with its learned weights, a TF2 SavedModel."""
    folder = FOLDER / "lite0-module"
    if not folder.is_dir():
        code = "import sys, pathlib; from tests.support.learned import write_learned_module as w; "
        _run("-c", code + "w(pathlib.Path(sys.argv[1]))", str(folder))
    return folder


def learned() -> Path:
    """The newest version made of `learned_module`."""
    return _exported(str(learned_module()), FOLDER / "lite0")


def learned_with(precision: str) -> Path | None:
    """As `stand_in_with`."""
    return learned() if precision != "int8" else newest(FOLDER / "lite0-int8")


def _exported(module: str, base_path: Path, *options: str) -> Path:
    if not newest(base_path):
        _run("-m", "featurewire_exporter", "export", module, str(base_path), *options)
    version = newest(base_path)
    assert version is not None
    return version


def newest(base_path: Path) -> Path | None:
    """The version directory with the highest number."""
    entries = base_path.iterdir() if base_path.is_dir() else ()
    versions = [entry for entry in entries if entry.name.isdigit()]
    return max(versions, key=lambda entry: int(entry.name), default=None)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


if __name__ == "__main__":
    pictures = ["--calibration-images", str(STAMPS)] if STAMPS.is_dir() else []
    print(_exported(str(learned_module()), FOLDER / "lite0-int8", "--int8", *pictures))
    print(_exported("stand-in", FOLDER / "stand-in-int8", "--int8"))
