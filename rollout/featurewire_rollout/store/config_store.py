"""The storage of the config: atomic writes, and a lock for one operator at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class ConfigStore(Protocol):
    """A text that servers read."""

    name: str
    """Its name in errors and reports."""

    def read(self) -> str:
        """The text. Raises `ConfigFileError`."""

    def write(self, text: str, *, expected: str) -> None:
        """Replace the text atomically.

        Raises `ConflictError` if the present text is not `expected`, and `ConfigFileError` if it
        cannot be written. The old text is still there then.
        """

    def lock(self, owner: str) -> AbstractContextManager[None]:
        """Lock out other operators, whose error names `owner`. Raises `ConflictError`."""


def open_store(config: str) -> ConfigStore:
    """The store of `--config`: a file or a ConfigMap.

    Raises `ConfigError` for a malformed name. Does not read the config.
    """
    from featurewire_rollout.store.config_map import ConfigMapStore
    from featurewire_rollout.store.file import FileStore

    return ConfigMapStore(config) if config.startswith("configmap:") else FileStore(config)
