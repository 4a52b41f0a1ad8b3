"""Settings of an export. Imports no TensorFlow, because the command line is parsed with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurewire_exporter.bridge.config import BridgeConfig
from featurewire_exporter.int8.config import Int8Config

KINDS = ("auto", "slim-checkpoint")
"""Kinds of modules; `auto` looks at the module."""
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """The module to export, and how."""

    module: str
    """A handle, path, or `stand-in`."""
    base_path: str | Path
    """The folder that holds the versions of one model."""
    kind: str = "auto"
    """One of `KINDS`."""
    version: int | None = None
    """The version's number; None takes the next free one."""
    precision: str = "float32"
    """One of `PRECISIONS`."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels, for modules that accept any size."""
    signature: str | None = None
    """The signature that gives the vectors; None takes the one whose name says so."""
    max_batch_size: int = 32
    """The largest batch that the server forms, in images."""
    preprocess: Mapping[str, Any]
    """Settings of `PreprocessConfig`, without height and width."""
    bridge: BridgeConfig | None = None
    """The older versions whose vector spaces are also served."""
    int8: Int8Config | None = None
    """How to make an additional network in 8 bits."""
