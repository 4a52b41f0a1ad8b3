"""What to export and how. Imports no TensorFlow: the command line is parsed with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurewire_exporter.bridge.config import BridgeConfig
from featurewire_exporter.int8.config import Int8Config

KINDS = ("auto", "slim-checkpoint")
"""What a module can be said to be; `auto` finds out."""
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export and how."""

    module: str
    """A handle, path, or `stand-in`."""
    base_path: str | Path
    """The folder that holds the versions of one model."""
    kind: str = "auto"
    """One of `KINDS`."""
    version: int | None = None
    """The number to publish as; None takes the next free one."""
    precision: str = "float32"
    """One of `PRECISIONS`."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels, for modules that take any."""
    signature: str | None = None
    """The signature that gives the vectors; None takes the one whose name says so."""
    max_batch_size: int = 32
    """The largest batch that the server merges, images."""
    preprocess: Mapping[str, Any]
    """Settings of `PreprocessConfig` besides height and width."""
    bridge: BridgeConfig | None = None
    """Which older versions' spaces to serve, too."""
    int8: Int8Config | None = None
    """How to make a quantised network beside the float one."""
