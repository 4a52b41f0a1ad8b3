"""Polls --model_config_file and reloads the models when it changes; a bad file changes nothing."""

from __future__ import annotations

import logging
import threading

from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_server.common.errors import ServingError, invalid_argument
from featurewire_server.common.text_files import read
from featurewire_server.models.manager import Manager

log = logging.getLogger(__name__)


class ConfigFile:
    """Keeps the manager's config equal to the file.

    The file wins, as in TensorFlow Serving: a config from HandleReloadConfigRequest lasts until
    the next poll. A reload that failed is retried at every poll, but logged only if the error is
    a different one.
    """

    def __init__(self, path: str, manager: Manager) -> None:
        self._path = path
        self._manager = manager
        self._problem = ""

    def watch(self, seconds: float, stopping: threading.Event) -> None:
        """Start a thread that reads the file every `seconds` until `stopping` is set."""
        threading.Thread(
            target=self._watch, args=(seconds, stopping), name="config-file", daemon=True
        ).start()

    def _watch(self, seconds: float, stopping: threading.Event) -> None:
        while not stopping.wait(seconds):
            try:
                self.poll()
            except Exception:  # the thread must survive any error
                log.exception("reading %s failed", self._path)

    def poll(self) -> None:
        """Read the file once, and reload if it has changed or if the last reload failed."""
        config = ModelServerConfig()
        try:
            read(self._path, config)
            if config.WhichOneof("config") is None:  # may be half written
                raise invalid_argument(f"{self._path} has no model_config_list")
            if self._problem or config != self._manager.config:
                log.info("reloading %s", self._path)
                self._manager.reload(config)
        except ServingError as error:
            kept = self._manager.config != config
            rest = "the current config stays" if kept else f"the rest of {self._path} is in effect"
            self._complain(f"{error.message}; {rest}")
        else:
            self._problem = self._manager.remark = ""

    def _complain(self, problem: str) -> None:
        # GetModelStatus also shows the problem.
        self._manager.remark = problem
        if problem != self._problem:
            self._problem = problem
            log.error("%s", problem)
