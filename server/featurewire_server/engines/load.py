"""Loads a version directory into an engine."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from featurewire.manifest import FILE
from featurewire_server.common.errors import ServingError, failed_precondition
from featurewire_server.engines.artifact import ArtifactEngine
from featurewire_server.engines.engine import Engine, EngineConfig, Unsuitable
from featurewire_server.engines.libraries import import_tensorflow, sees_gpu

log = logging.getLogger(__name__)


def load_engine(path: Path, config: EngineConfig, *, beside: bool = False) -> Engine:
    """Load the version directory `path` with the engine that `config` asks for.

    `beside`: other versions are answering calls, so disturb them less, although loading takes
    longer. Raises ServingError if the directory cannot be loaded.
    """
    engine = _load(path, config, beside)
    return ArtifactEngine(engine) if (path / FILE).is_file() else engine


def _load(path: Path, config: EngineConfig, beside: bool) -> Engine:
    why = "--engine=tensorflow"
    if config.engine != "tensorflow":
        try:
            return _load_openvino(path, config, beside)
        except Unsuitable as error:
            if config.engine == "openvino" or config.int8:
                raise failed_precondition(f"OpenVINO cannot run {path}: {error}") from error
            log.info("%s: the TensorFlow engine runs it, because %s", path, error)
            why = str(error)
    try:
        import_tensorflow()
    except ServingError as error:
        raise failed_precondition(f"{path} needs TensorFlow ({why}). {error.message}") from error
    from featurewire_server.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine(path, config)


def _load_openvino(path: Path, config: EngineConfig, beside: bool) -> Engine:
    """Raises Unsuitable if TensorFlow has to run the version."""
    if importlib.util.find_spec("openvino") is None:
        raise Unsuitable('openvino is not installed (pip install "featurewire-server[openvino]")')
    if config.mixed_precision == "float16":
        raise Unsuitable("OpenVINO computes in float32 or bfloat16 on a CPU, not in float16")
    if config.engine == "auto" and not config.int8 and sees_gpu():
        raise Unsuitable("there is a GPU")
    try:
        from featurewire_server.engines.openvino import OpenVinoEngine
    except ImportError as error:  # without the extra, but with openvino itself
        raise Unsuitable(
            f'{error.name} is not installed (pip install "featurewire-server[openvino]")'
        ) from error
    return OpenVinoEngine(path, config, beside=beside)
