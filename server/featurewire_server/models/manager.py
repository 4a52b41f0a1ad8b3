"""The manager keeps the versions loaded that its source asks for, and lends their runners to calls.

`policy` makes the decisions, and this module carries them out in threads. One lock guards all
records. Loading, warm-up and unloading do not hold the lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from featurewire._tfs.get_model_status_pb2 import ModelVersionStatus
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire._tfs.model_server_config_pb2 import ModelConfig, ModelServerConfig
from featurewire_server.batching.runner import Runner
from featurewire_server.common import memory
from featurewire_server.common.errors import (
    ServingError,
    from_exception,
    invalid_argument,
    not_found,
    shutting_down,
)
from featurewire_server.common.metrics import Metrics
from featurewire_server.models import policy
from featurewire_server.models.servable import Servable, State
from featurewire_server.models.source import Source

log = logging.getLogger(__name__)

Load = Callable[[str, int, Path], Runner]
"""Loads and warms up a version (model name, version, directory); raises if that fails."""


@dataclass(frozen=True, kw_only=True)
class ManagerConfig:
    """Settings for polling and loading."""

    poll_seconds: float = 1.0
    """Seconds between polls of the base paths; 0: look only when the config changes."""
    max_load_retries: int = 5
    load_retry_seconds: float = 60.0
    load_threads: int = 1
    """Maximum number of versions that load at the same time."""
    allow_labels_for_unavailable: bool = False


class Manager:
    """All versions of all models. Thread-safe."""

    def __init__(
        self, load: Load, config: ManagerConfig | None = None, metrics: Metrics | None = None
    ) -> None:
        self._load = load
        self._config = config or ManagerConfig()
        self._metrics = metrics or Metrics()
        self._changed = threading.Condition()
        self._reloading = threading.Lock()
        self._slots = threading.Semaphore(max(self._config.load_threads, 1))
        self._source = Source(self._aspire, self._config.poll_seconds)
        self._labels: dict[str, dict[str, int]] = {}
        self._servables: dict[str, dict[int, Servable]] = {}
        self._server_config: ModelServerConfig | None = None
        self._new: set[str] = set()
        """Models that a reload added and that have not loaded yet."""
        self.remark = ""
        """Text for the status of versions without an error, such as why a config file is not in
        force."""
        self._stopping = False

    # --- requests

    @contextmanager
    def use(self, spec: ModelSpec) -> Iterator[Servable]:
        """The AVAILABLE version that `spec` names, which stays loaded during the block.

        Raises NOT_FOUND if the version is not available, INVALID_ARGUMENT for a bad spec.
        """
        with self._changed:
            servable = self._find(spec)
            servable.inflight += 1
        try:
            yield servable
        finally:
            with self._changed:
                servable.inflight -= 1
                if servable.inflight == 0 and servable.state is not State.AVAILABLE:
                    self._changed.notify_all()

    def _find(self, spec: ModelSpec) -> Servable:
        version = self._version_of(spec)
        versions = self._servables.get(spec.name, {})
        if version is None:
            ready = self.available(spec.name)
            if not ready:
                raise not_found(f"Servable not found for request: Latest({spec.name})")
            return versions[ready[-1]]
        servable = versions.get(version)
        if servable is None or servable.state is not State.AVAILABLE:
            raise not_found(f"Servable not found for request: Specific({spec.name}, {version})")
        return servable

    def _version_of(self, spec: ModelSpec) -> int | None:
        """The version that `spec` asks for; None means the latest."""
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version":
            return spec.version.value
        if choice == "version_label":
            version = self._labels.get(spec.name, {}).get(spec.version_label)
            if version is None:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            return version
        return None

    def statuses(self, spec: ModelSpec) -> list[ModelVersionStatus]:
        """The states of the versions that `spec` names, newest first, including ended versions.

        As in TensorFlow Serving, a label in `spec` is ignored. Raises NOT_FOUND for an unknown
        model or version, and also for an empty name.
        """
        with self._changed:
            version = spec.version.value if spec.HasField("version") else None
            versions = self._servables.get(spec.name, {})
            if version is not None:
                if version not in versions:
                    raise not_found(f"Could not find version {version} of model {spec.name}")
                return [self._status(versions[version])]
            if not versions:
                raise not_found(self._nothing_found(spec.name))
            return [self._status(versions[number]) for number in sorted(versions, reverse=True)]

    def available(self, name: str) -> list[int]:
        """The AVAILABLE versions of a model, in ascending order."""
        with self._changed:
            versions = self._servables.get(name, {})
            return sorted(v for v, s in versions.items() if s.state is State.AVAILABLE)

    @property
    def ready(self) -> bool:
        """Whether every model has an AVAILABLE version, and the server is not stopping."""
        with self._changed:
            return not self._stopping and all(map(self.available, self._source.models))

    def _nothing_found(self, name: str) -> str:
        text = f"Could not find any versions of model {name}"
        complaint = self._source.complaint(name)
        return f"{text}: {complaint}" if complaint else text

    def _status(self, servable: Servable) -> ModelVersionStatus:
        status = servable.status()
        if not status.status.error_code:
            status.status.error_message = self._source.complaint(servable.name) or self.remark
        return status

    # --- configuration

    def reload(self, config: ModelServerConfig, *, deadline: float | None = None) -> None:
        """Replace the whole config, wait until new models have loaded or failed, set the labels.

        Raises INVALID_ARGUMENT for a bad config, before anything changes; UNKNOWN, with their
        names, if new models did not load; FAILED_PRECONDITION for a label on an unavailable
        version (the old labels stay). The first call checks the labels before loading, when none
        of the versions is AVAILABLE.
        """
        models = policy.models_of(config)
        for name, model in models.items():
            if model.HasField("logging_config"):
                log.warning("%s: logging_config has no effect, requests are not logged", name)
        with self._reloading:
            first = self._server_config is None
            if first:
                self._set_labels(models)
            with self._changed:
                # A model stays new until it has loaded, so that a second reload also reports it.
                known = self._source.models
                self._new = {n for n in models if n in self._new or n not in known}
                self._server_config = config
                self._metrics.observe_models(models=models)
            self._source.watch(models)
            self._wait_settled(deadline)
            failed = self._failures()
            if failed:
                raise ServingError(
                    grpc.StatusCode.UNKNOWN,
                    f"{len(failed)} servable(s) did not become available: {{{'; '.join(failed)}}}",
                )
            if not first:
                self._set_labels(models)

    @property
    def config(self) -> ModelServerConfig | None:
        """The config in force."""
        return self._server_config

    def _set_labels(self, models: dict[str, ModelConfig]) -> None:
        with self._changed:
            self._labels = policy.labels_of(
                models,
                available={name: self.available(name) for name in self._servables},
                in_use=self._labels,
                allow_unavailable=self._config.allow_labels_for_unavailable,
            )
            self._metrics.observe_labels(labels=self._labels)

    def _wait_settled(self, deadline: float | None) -> None:
        """Wait until the versions of all new models have loaded, or have failed once.

        Raises DEADLINE_EXCEEDED at `deadline`, UNAVAILABLE if the server stops.
        """

        def settled() -> bool:
            return self._stopping or all(
                servable.settled() or not servable.aspired
                for name in self._new
                for servable in self._servables.get(name, {}).values()
            )

        with self._changed:
            timeout = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not self._changed.wait_for(settled, timeout):
                text = "The models are still loading"
                raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, text)
            if self._stopping:
                raise shutting_down()

    def _failures(self) -> list[str]:
        """The errors of new models. Models without an error stop being new."""
        failed = []
        with self._changed:
            for name in sorted(self._new):
                errors = [
                    f"{{name: {name} version: {servable.version}}} due to error: "
                    f"{servable.error.message}"
                    for servable in self._servables.get(name, {}).values()
                    if servable.aspired and servable.error and servable.state is not State.AVAILABLE
                ]
                if not errors and self._without_base_path(name):
                    errors = [f"{{name: {name}}} due to error: {self._source.complaint(name)}"]
                failed += errors
                if not errors:
                    self._new.discard(name)
        return failed

    def _without_base_path(self, name: str) -> bool:
        """Whether a model does not have any version because its base path cannot be read."""
        return self._source.unreadable(name) and not self._servables.get(name)

    # --- aspired versions

    def start(self) -> None:
        """Start polling the base paths."""
        self._source.start()

    def poll(self) -> None:
        """Look at every base path once, then load and unload versions accordingly."""
        self._source.poll()

    def _aspire(self, name: str, wanted: Mapping[int, Path]) -> None:
        """The source's callback. Versions that are not in `wanted` will be unloaded."""
        with self._changed:
            versions = self._servables.setdefault(name, {})
            for version, path in wanted.items():
                known = versions.get(version)
                if known is None or (known.state is State.END and not known.aspired):
                    versions[version] = Servable(name=name, version=version, path=path)
                    self._enter(versions[version], State.START)
                elif known.state is not State.UNLOADING:  # else load again after END
                    known.aspired = True
            for version, servable in versions.items():
                if servable.aspired and version not in wanted:
                    servable.aspired = False
                    self._changed.notify_all()  # wake a load that waits to retry
            if not versions:
                del self._servables[name]
            self._act(name)

    # --- transitions (called with the lock held)

    def _act(self, name: str) -> None:
        versions = self._servables.get(name, {})
        load, unload = policy.next_actions(versions.values())
        for version in load:
            self._enter(versions[version], State.LOADING)
            self._spawn(self._bring_up, versions[version])
        for version in unload:
            self._enter(versions[version], State.UNLOADING)
            self._spawn(self._take_down, versions[version])

    def _enter(self, servable: Servable, state: State) -> None:
        servable.state = state
        log.info("%s version %d: %s", servable.name, servable.version, state.name)
        self._metrics.observe_state(model=servable.name, version=servable.version, state=state.name)
        self._changed.notify_all()

    def _spawn(self, work: Callable[[Servable], None], servable: Servable) -> None:
        threading.Thread(
            target=work, args=(servable,), name=f"{servable.name}-{servable.version}", daemon=True
        ).start()

    # --- loading and unloading (each in a separate thread)

    def _bring_up(self, servable: Servable) -> None:
        while True:
            with self._slots:
                if self._given_up(servable):
                    break
                runner = self._attempt(servable)
            with self._changed:
                if runner is not None:
                    servable.runner, servable.error = runner, None
                    self._enter(servable, State.AVAILABLE)
                    self._act(servable.name)
                    return
                if servable.attempts > self._config.max_load_retries:
                    break
                self._changed.wait_for(
                    lambda: self._given_up(servable), self._config.load_retry_seconds
                )
        with self._changed:
            self._enter(servable, State.END)
            self._act(servable.name)

    def _given_up(self, servable: Servable) -> bool:
        return self._stopping or not servable.aspired

    def _attempt(self, servable: Servable) -> Runner | None:
        try:
            return self._load(servable.name, servable.version, servable.path)
        except Exception as failure:
            error = from_exception(failure)
            with self._changed:
                servable.error = error
                servable.attempts += 1
                attempts = servable.attempts
                self._changed.notify_all()
            log.error(
                "%s version %d did not load (attempt %d of %d): %s",
                servable.name,
                servable.version,
                attempts,
                self._config.max_load_retries + 1,
                error.message,
            )
            return None

    def _take_down(self, servable: Servable) -> None:
        with self._changed:
            self._changed.wait_for(lambda: servable.inflight == 0)
            runner = servable.runner
            del servable.runner
        try:
            runner.close()
        except Exception:
            log.exception("closing %s version %d failed", servable.name, servable.version)
        del runner
        memory.trim_heap()
        with self._changed:
            self._enter(servable, State.END)
            self._act(servable.name)

    def stop(self) -> None:
        """Stop polling and loading. Versions that are loaded stay usable."""
        self._source.stop()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
