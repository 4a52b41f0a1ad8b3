"""A lock for one operator, as a Lease (coordination.k8s.io/v1).

The holder renews the Lease. A Lease that was not renewed for its whole duration is free.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from featurewire_rollout.errors import ConflictError
from featurewire_rollout.store.kubernetes_api import CALL_SECONDS, RETRY_SECONDS, Kube, status_of

LEASE_SECONDS = 15
"""Duration of a Lease: how long it outlives a killed holder."""
RENEW_SECONDS = 5.0
"""Interval between two renewals."""


class Lease:
    """A named lock in a namespace."""

    def __init__(
        self, kube: Kube, namespace: str, name: str, *, about: str, duration: int = LEASE_SECONDS
    ) -> None:
        """`about` names the protected config in errors."""
        from kubernetes.client import CoordinationV1Api

        self._kube = kube
        self._api = CoordinationV1Api(kube.api)
        self._namespace, self._name = namespace, name
        self._about = about
        self._duration = duration
        self.lost = ""
        """The operator that has taken the Lease away; empty if none has."""

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Hold the lock. Raises `ConflictError`, which names the holder, and `ConfigFileError`."""
        self.lost = ""
        self._acquire(owner)
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(owner, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._release(owner)

    def _acquire(self, owner: str) -> None:
        seen, since = "", time.monotonic()
        until = self._kube.until()
        while True:
            try:
                found = self._read()
                holder, renewed = found.spec.holder_identity, found.spec.renew_time
                state = f"{holder} {renewed}"
                if holder and (self._fresh(renewed) or (seen and state != seen)):
                    raise ConflictError(
                        f"{self._about} is being changed by {holder}; wait until it has ended, "
                        "or interrupt it (`status` shows where it is)"
                    )
                # The Lease has expired by this clock. Clocks differ, so wait for a renewal.
                if state != seen:
                    seen, since = state, time.monotonic()
                if not holder or time.monotonic() - since >= self._duration:
                    self._write(found, owner)
                    return
            except ConflictError:
                raise
            except Exception as error:
                # 409: another operator was faster. The next read names it.
                passing = status_of(error) == 409 or self._kube.is_transient(error)
                if not passing or (status_of(error) != 409 and time.monotonic() >= until):
                    raise self._kube.explained("lock", error) from error
            time.sleep(RETRY_SECONDS)

    def _fresh(self, renewed: datetime | None) -> bool:
        if renewed is None:
            return False
        return abs((datetime.now(UTC) - renewed).total_seconds()) < self._duration

    def _read(self) -> Any:
        from kubernetes.client import ApiException

        try:
            return self._api.read_namespaced_lease(
                self._name, self._namespace, _request_timeout=CALL_SECONDS
            )
        except ApiException as error:
            if error.status != 404:
                raise
        body: Any = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {},
        }
        return self._api.create_namespaced_lease(
            self._namespace, body, _request_timeout=CALL_SECONDS
        )

    def _write(self, found: Any, owner: str | None) -> None:
        """Set the holder to `owner`, or to none. 409 if the Lease has changed since `found`."""
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = {"holderIdentity": owner, "leaseDurationSeconds": self._duration, "renewTime": stamp}
        if owner and found.spec.holder_identity != owner:
            spec["acquireTime"] = stamp
            spec["leaseTransitions"] = (found.spec.lease_transitions or 0) + 1
        self._api.patch_namespaced_lease(
            self._name,
            self._namespace,
            {"metadata": {"resourceVersion": found.metadata.resource_version}, "spec": spec},
            _request_timeout=CALL_SECONDS,
        )

    def _renew(self, owner: str, ended: threading.Event) -> None:
        while not ended.wait(min(RENEW_SECONDS, self._duration / 3)):
            # After an error of the API server, the next turn tries again.
            with contextlib.suppress(Exception):
                found = self._read()
                if found.spec.holder_identity not in (owner, None, ""):
                    self.lost = str(found.spec.holder_identity)
                    return
                self._write(found, owner)

    def _release(self, owner: str) -> None:
        # If this fails, the Lease expires.
        with contextlib.suppress(Exception):
            found = self._read()
            if found.spec.holder_identity == owner:
                self._write(found, None)
