"""Where the config lives, and the two things asked of that place: to change it whole, and by one
operator at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["ConfigStore", "open_store"]


class ConfigStore(Protocol):
    """A text that servers read."""

    name: str
    """What errors and reports call it."""

    def read(self) -> str:
        """The text. Raises `ConfigFileError`."""

    def write(self, text: str, *, expected: str) -> None:
        """Replace the text, whole or not at all.

        Raises `ConflictError` when it is not `expected` any more, `ConfigFileError` when it cannot
        be written; what was there is still there then.
        """

    def lock(self, owner: str) -> AbstractContextManager[None]:
        """Hold off other operators. `owner` is what they are told. Raises `ConflictError`."""


def open_store(config: str) -> ConfigStore:
    """The store of `--config`: a file or a ConfigMap.

    Raises `ConfigError` for what names neither. Nothing is read yet.
    """
    from featurewire_rollout.store.config_map import ConfigMapStore
    from featurewire_rollout.store.file import FileStore

    return ConfigMapStore(config) if config.startswith("configmap:") else FileStore(config)
