"""Loads an engine of the embedded server into this process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from featurewire_server.engines.engine import Engine, EngineConfig
from featurewire_server.engines.load import load_engine


@cache
def load(version: Path, engine: str, precision: str) -> Engine:
    """Load a version once; all parts of a quick run share it.

    `engine`: `tensorflow` or `openvino`; `precision`: `float32`, `bfloat16` or `int8`.
    """
    mixed = precision if precision == "bfloat16" else ""
    config = EngineConfig(engine=engine, mixed_precision=mixed, int8=precision == "int8")
    return load_engine(version, config)
