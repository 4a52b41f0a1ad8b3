"""Loads a version directory into an engine."""

from __future__ import annotations

from pathlib import Path

from featurewire.manifest import FILE
from featurewire_server.engines.artifact import ArtifactEngine
from featurewire_server.engines.engine import Engine, EngineConfig


def load_engine(path: Path, config: EngineConfig, *, beside: bool = False) -> Engine:
    """Load the version directory `path` with the engine that `config` asks for.

    `beside`: other versions are answering calls, so disturb them less, although loading takes
    longer. Raises ServingError if the directory cannot be loaded.
    """
    engine = _load(path, config, beside)
    return ArtifactEngine(engine) if (path / FILE).is_file() else engine


def _load(path: Path, config: EngineConfig, beside: bool) -> Engine:
    if config.engine != "tensorflow":
        from featurewire_server.engines import openvino as engine_openvino

        engine = engine_openvino.load(path, config, beside=beside)
        if engine is not None:
            return engine
    from featurewire_server.engines import tensorflow as engine_tensorflow

    return engine_tensorflow.TensorFlowEngine(path, config)
