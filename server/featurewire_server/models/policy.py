"""Pure functions that decide: is a config legal, which versions are wanted, what to load next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from featurewire._tfs.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig
from featurewire._tfs.model_server_config_pb2 import (
    TENSORFLOW,
    ModelConfig,
    ModelServerConfig,
)
from featurewire_server.common.errors import failed_precondition, invalid_argument
from featurewire_server.models.servable import Servable, State

VersionPolicy = FileSystemStoragePathSourceConfig.ServableVersionPolicy
PLATFORM = "tensorflow"


def models_of(config: ModelServerConfig) -> dict[str, ModelConfig]:
    """The models of a legal config by name; raises INVALID_ARGUMENT for an illegal one."""
    models: dict[str, ModelConfig] = {}
    for model in config.model_config_list.config:
        if not model.name:
            raise invalid_argument("Every model in the config list needs a name")
        if model.name in models:
            raise invalid_argument(
                f"Illegal to list model {model.name} multiple times in config list"
            )
        _check_platform(model)
        if "://" in model.base_path:
            raise invalid_argument(
                f"Model {model.name}: {model.base_path} is not in the local file system; only "
                "local paths can be served"
            )
        if not model.base_path.startswith("/"):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}"
            )
        models[model.name] = model
    return models


def _check_platform(model: ModelConfig) -> None:
    if model.model_type and model.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) "
            "and ModelServerConfig::model_platform."
        )
    if not model.model_type and not model.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) "
            "nor ModelServerConfig::model_platform."
        )
    if model.model_type not in (0, TENSORFLOW):
        raise invalid_argument(
            f"ModelServerConfig::model_type choice {model.model_type} not supported."
        )
    if model.model_platform not in ("", PLATFORM):
        raise invalid_argument(
            f"Model {model.name} requests unsupported platform {model.model_platform}"
        )


def aspired_versions(policy: VersionPolicy, present: Collection[int]) -> list[int]:
    """The versions among `present` that `policy` wants, ascending."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return sorted(present)
    if choice == "specific":
        return sorted({*policy.specific.versions} & {*present})
    return sorted(present)[-max(policy.latest.num_versions, 1) :]


def next_actions(servables: Iterable[Servable]) -> tuple[list[int], list[int]]:
    """The versions of one model to load and those to unload, keeping the model available.

    All aspired versions start to load now, newest first. Versions that are no longer aspired are
    unloaded, except that the newest of them stays until an aspired version is AVAILABLE. Without
    aspired versions, all are unloaded.
    """
    versions = list(servables)
    load = [v.version for v in versions if v.aspired and v.state is State.START]
    idle = sorted(v.version for v in versions if not v.aspired and v.state is State.AVAILABLE)
    aspired = [v for v in versions if v.aspired]
    if aspired and not any(v.state is State.AVAILABLE for v in aspired):
        idle = idle[:-1]
    return sorted(load, reverse=True), idle


Labels = Mapping[str, Mapping[str, int]]
"""Maps model name to label to version."""


def labels_of(
    models: Mapping[str, ModelConfig],
    *,
    available: Mapping[str, Collection[int]],
    in_use: Labels,
    allow_unavailable: bool,
) -> dict[str, dict[str, int]]:
    """The label map that `models` asks for.

    `available`: model name to its AVAILABLE versions; `in_use`: the map in force. Raises
    FAILED_PRECONDITION if a version with a label is not AVAILABLE. With `allow_unavailable`, that
    is allowed for labels that are not in use yet or that keep their version.
    """
    labels: dict[str, dict[str, int]] = {}
    for name, model in models.items():
        for label, version in sorted(model.version_labels.items()):
            current = in_use.get(name, {}).get(label)
            free = allow_unavailable and current in (None, version)
            if version not in available.get(name, ()) and not free:
                raise failed_precondition(
                    f"Request to assign label to version {version} of model {name}, "
                    "which is not currently available for inference"
                )
            labels.setdefault(name, {})[label] = version
    return labels
