"""The config in a Kubernetes ConfigMap, with optimistic concurrency and a Lease as the lock."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from featurewire import ConfigError
from featurewire_rollout.errors import ConfigFileError, ConflictError
from featurewire_rollout.store.kubernetes_api import (
    CALL_SECONDS,
    RETRY_SECONDS,
    Kube,
    open_api,
    status_of,
)
from featurewire_rollout.store.lease import LEASE_SECONDS, Lease

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

PREFIX = "configmap:"


class ConfigMapStore:
    """One key of a ConfigMap. Other keys, labels and annotations stay unchanged."""

    def __init__(
        self,
        config: str,
        *,
        patience: float = 10.0,
        write_patience: float = 60.0,
        lease_seconds: int = LEASE_SECONDS,
    ) -> None:
        """`config` is `configmap:NAMESPACE/NAME/KEY`. Raises `ConfigError`.

        `patience`: seconds of retries if the API server does not answer. `write_patience` is
        longer, because a write comes in the middle of a step.
        """
        parts = config.removeprefix(PREFIX).split("/")
        if len(parts) != 3 or not all(parts):
            raise ConfigError(f"{config} is not configmap:NAMESPACE/NAME/KEY")
        self.name = config
        self._namespace, self._map, self._key = parts
        self._patience = patience
        self._write_patience = write_patience
        self._lease_seconds = lease_seconds

    @cached_property
    def _kube(self) -> Kube:
        return Kube(open_api(), self.name, patience=self._patience)

    @cached_property
    def _core(self) -> CoreV1Api:
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self._kube.api)

    @cached_property
    def _lease(self) -> Lease:
        return Lease(
            self._kube,
            self._namespace,
            f"featurewire-rollout-{self._map}",
            about=self.name,
            duration=self._lease_seconds,
        )

    def read(self) -> str:
        return self._text(self._read())

    def write(self, text: str, *, expected: str) -> None:
        """See `ConfigStore`. The API server refuses a write if the `resourceVersion` has changed.

        After a lost answer the ConfigMap is read again, because the write may have succeeded.
        """
        until = time.monotonic() + self._write_patience
        while True:
            found = self._read(until)
            current = self._text(found)
            if current == text:
                return
            if current != expected or self._lease.lost:
                by = self._lease.lost or "another writer"
                raise ConflictError(
                    f"{self.name} was changed by {by} in the meantime; check it and run the "
                    "command again"
                )
            try:
                self._core.patch_namespaced_config_map(
                    self._map,
                    self._namespace,
                    {
                        "metadata": {"resourceVersion": found.metadata.resource_version},
                        "data": {self._key: text},
                    },
                    _request_timeout=CALL_SECONDS,
                )
                return
            except Exception as error:
                # 409: the ConfigMap has changed. The next read shows whether this key has.
                if status_of(error) != 409 and not self._kube.is_transient(error):
                    raise self._kube.explained("write", error) from error
                if time.monotonic() >= until:
                    raise self._kube.explained("write", error) from error
            time.sleep(RETRY_SECONDS)

    def lock(self, owner: str) -> AbstractContextManager[None]:
        """See `ConfigStore`. The Lease of a killed process expires."""
        return self._lease.hold(owner)

    def _read(self, until: float | None = None) -> Any:
        return self._kube.read(
            lambda: self._core.read_namespaced_config_map(
                self._map, self._namespace, _request_timeout=CALL_SECONDS
            ),
            missing=f"create it: kubectl create configmap {self._map} --namespace "
            f"{self._namespace} --from-file {self._key}=models.config",
            until=until,
        )

    def _text(self, found: Any) -> str:
        data: dict[str, str] = found.data or {}
        if self._key not in data:
            listed = ", ".join(sorted(data)) or "none"
            raise ConfigFileError(
                f"cannot read {self.name}: the ConfigMap has no key {self._key}; it has: {listed}"
            )
        return data[self._key]
