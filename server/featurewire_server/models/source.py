"""The source polls the base paths of the models, and decides which versions should be loaded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from featurewire._tfs.model_server_config_pb2 import ModelConfig
from featurewire.plugin.files import version_folders
from featurewire_server.models import policy

log = logging.getLogger(__name__)

Aspire = Callable[[str, Mapping[int, Path]], None]
"""Callback with a model name, and the versions that the model should have with their folders."""


class Source:
    """Polls the base paths and calls `aspire`. Thread-safe.

    `aspire` runs under locks that only `watch` and the polls take.
    """

    def __init__(self, aspire: Aspire, poll_seconds: float) -> None:
        """`poll_seconds`: seconds between polls; 0: look only in `watch` and `poll`."""
        self._aspire = aspire
        self._poll_seconds = poll_seconds
        self._polling = threading.Lock()
        self._models_lock = threading.Lock()
        self._models: Mapping[str, ModelConfig] = {}
        self._complaints: dict[str, str] = {}
        self._unreadable: set[str] = set()
        self._stopped = threading.Event()

    @property
    def models(self) -> Mapping[str, ModelConfig]:
        """The watched models by name."""
        return self._models

    def complaint(self, model: str) -> str:
        """The problem with the base path of a model; empty: all is well."""
        return self._complaints.get(model, "")

    def unreadable(self, model: str) -> bool:
        """Whether the last look at the base path of a model failed."""
        return model in self._unreadable

    def watch(self, models: Mapping[str, ModelConfig]) -> None:
        """Watch these models instead of the previous ones, and look at their base paths now."""
        with self._models_lock:
            gone = self._models.keys() - models.keys()
            self._models = models
            for name in gone:
                self._complaints.pop(name, None)
                self._unreadable.discard(name)
                self._aspire(name, {})
        self.poll()

    def start(self) -> None:
        """Start polling."""
        if self._poll_seconds > 0:
            threading.Thread(target=self._poll_forever, name="poll", daemon=True).start()

    def stop(self) -> None:
        """Stop polling."""
        self._stopped.set()

    def _poll_forever(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            try:
                self.poll()
            except Exception:  # the thread must survive any error
                log.exception("polling the base paths failed")

    def poll(self) -> None:
        """Look at every base path once."""
        with self._polling:
            for name, model in self._models.items():
                self._poll_model(name, model)

    def _poll_model(self, name: str, model: ModelConfig) -> None:
        try:
            found = version_folders(Path(model.base_path))
        except OSError as error:
            text = f"cannot read the base path {model.base_path}: {error.strerror}"
            with self._models_lock:
                if self._models.get(name) is model:
                    self._unreadable.add(name)
                    self._complain(name, text, logging.ERROR)
            return
        wanted = policy.aspired_versions(model.model_version_policy, found)
        text = (
            f"no wanted version under the base path {model.base_path}; "
            "a version is a directory whose name is a number"
        )
        with self._models_lock:
            if self._models.get(name) is model:
                self._unreadable.discard(name)
                self._complain(name, "" if wanted else text, logging.WARNING)
                self._aspire(name, {version: found[version] for version in wanted})

    def _complain(self, name: str, text: str, level: int) -> None:
        """Remember `text` about a model, and log it if it has changed."""
        if self.complaint(name) != text:
            self._complaints[name] = text
            if text:
                log.log(level, "model %s: %s", name, text)
