"""Detect configs after which TensorFlow Serving accepts no other one until it is restarted.

TensorFlow Serving stores the new list of models before it has checked all of them. It compares each
later config with the broken one and refuses it. A model with a missing base path is worse, because
that reload never ends and blocks every later one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from featurewire._tfs.model_server_config_pb2 import TENSORFLOW, ModelConfig, ModelServerConfig
from featurewire_rollout.errors import ConfigFileError

PLATFORM = "tensorflow"


def check_models(config: ModelServerConfig, name: str) -> None:
    """Check the entries of all models, not only of the one being rolled out.

    `name` is the config's name in errors. Raises `ConfigFileError` with all faults in one line.
    """
    faults = [*_faults(config)]
    if faults:
        raise ConfigFileError(
            f"{name}: {'; '.join(faults)}; TensorFlow Serving would refuse every later config "
            "until it is restarted; fix it by hand, nothing was changed"
        )


def _faults(config: ModelServerConfig) -> Iterator[str]:
    models = config.model_config_list.config
    for number, model in enumerate(models, start=1):
        about = f"model {model.name}" if model.name else f"model number {number} of the list"
        if not model.name:
            yield f"{about} has no name"
        if fault := _platform_fault(model):
            yield f"{about} {fault}"
        if not model.base_path:
            yield f"{about} has no base_path"
        elif not model.base_path.startswith("/") and "://" not in model.base_path:
            yield f"{about} has a base_path that is not absolute: {model.base_path}"
    for listed, count in Counter(model.name for model in models if model.name).items():
        if count > 1:
            yield f"model {listed} is listed {count} times"


def _platform_fault(model: ModelConfig) -> str:
    if model.model_type and model.model_platform:
        return f'has both model_type and model_platform; keep model_platform: "{PLATFORM}"'
    if not model.model_type and not model.model_platform:
        return f'has no model_platform; add model_platform: "{PLATFORM}"'
    # A later config with the right platform would be refused as a change of platform.
    if model.model_type not in (0, TENSORFLOW) or model.model_platform not in ("", PLATFORM):
        wrong = model.model_platform or "another model_type"
        return f'has {wrong} as its platform; only model_platform: "{PLATFORM}" can be rolled out'
    return ""


def check_base_paths(config: ModelServerConfig, name: str) -> None:
    """Check that base paths exist, if this machine sees the servers' folders.

    It does if the base path of any model is a folder here. Then a base path that is missing in an
    existing folder is also missing on the servers. Raises `ConfigFileError`.
    """
    models = config.model_config_list.config
    local = [model for model in models if model.base_path.startswith("/")]
    if not any(Path(model.base_path).is_dir() for model in local):
        return
    for model in local:
        path = Path(model.base_path)
        if path.parent.is_dir() and not path.is_dir():
            raise ConfigFileError(
                f"{name}: the base path of model {model.name} does not exist: {model.base_path}; "
                "TensorFlow Serving would never finish a reload that names it, and would block "
                "all later reloads; create the folder with a version in it, or use "
                "--trust-config if the servers see it; nothing was changed"
            )
