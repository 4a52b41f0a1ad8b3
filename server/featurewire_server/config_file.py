"""Reads --model_config_file again and again; a bad file leaves the config in force as it is."""

from __future__ import annotations

import logging
import threading

from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_server.common.errors import ServingError, invalid_argument
from featurewire_server.common.text_files import read
from featurewire_server.models.manager import Manager

log = logging.getLogger(__name__)


class ConfigFile:
    """Keeps what the manager serves equal to what the file says.

    As with TensorFlow Serving the file wins: a config that HandleReloadConfigRequest brought lasts
    until the next look. What failed is tried again at every look, and logged when it changes.
    """

    def __init__(self, path: str, manager: Manager) -> None:
        self._path = path
        self._manager = manager
        self._problem = ""

    def watch(self, seconds: float, stopping: threading.Event) -> None:
        """Look every `seconds`, in a thread of its own, until `stopping`."""
        threading.Thread(
            target=self._watch, args=(seconds, stopping), name="config-file", daemon=True
        ).start()

    def _watch(self, seconds: float, stopping: threading.Event) -> None:
        while not stopping.wait(seconds):
            try:
                self.look()
            except Exception:  # must outlive whatever one look brings
                log.exception("reading %s failed", self._path)

    def look(self) -> None:
        """Read the file once and reload if it says something new, or failed the last time."""
        config = ModelServerConfig()
        try:
            read(self._path, config)
            if config.WhichOneof("config") is None:  # a file that is just being written
                raise invalid_argument(f"{self._path} holds no model_config_list")
            if self._problem or config != self._manager.config:
                log.info("reloading %s", self._path)
                self._manager.reload(config)
        except ServingError as error:
            kept = self._manager.config != config
            rest = "the config in force stays" if kept else f"otherwise {self._path} is in force"
            self._complain(f"{error.message}; {rest}")
        else:
            self._problem = self._manager.remark = ""

    def _complain(self, problem: str) -> None:
        # Whoever asks for the status is told, too.
        self._manager.remark = problem
        if problem != self._problem:
            self._problem = problem
            log.error("%s", problem)
