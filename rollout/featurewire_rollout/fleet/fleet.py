"""All replicas of a model: resolve their addresses, query them and reload their config."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

from featurewire import ConfigError, DeadlineExceededError, FeaturewireError, TLSConfig
from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire.plugin.target import is_local, split_target
from featurewire_rollout.decide.view import FleetView, ReplicaView
from featurewire_rollout.fleet.replica import Replica

RELOAD_SECONDS = 60.0
"""Timeout of a reload. A reload waits for new models, not for new versions of a model."""
UNANSWERED = f"no answer within {RELOAD_SECONDS:g} s"
"""The outcome of a reload that timed out; every other outcome is the replica's error."""

Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """The IPv4 addresses of a host name, or else its IPv6 addresses, because hosts have both."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    four = [str(each[4][0]) for each in found if each[0] == socket.AF_INET]
    six = [f"[{each[4][0]}]" for each in found if each[0] == socket.AF_INET6]
    return sorted(dict.fromkeys(four or six))


def addresses_of(server: str, resolve: Resolve = resolve) -> list[str]:
    """The addresses of one `host:port`. A name may resolve to several replicas.

    Raises `OSError` for a name that does not resolve.
    """
    host, _, port = server.removeprefix("dns:///").rpartition(":")
    if server.startswith(("unix:", "unix-abstract:")) or host == "localhost":
        return [server]
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.strip("[]"))
        return [server]
    return [f"{address}:{port}" for address in resolve(host, int(port))]


class Fleet:
    """The replicas of one model. A context manager."""

    def __init__(
        self,
        servers: Sequence[str],
        *,
        model: str,
        tls: TLSConfig | None = None,
        token: str | None = None,
        call_seconds: float = 10.0,
        resolve: Resolve = resolve,
    ) -> None:
        """`servers`: `host:port`, several with commas between. Raises `ConfigError`."""
        parts = [each for server in servers for each in split_target(server)]
        self.servers = list(dict.fromkeys(parts))
        if not self.servers:
            raise ConfigError("name the replicas with --server HOST:PORT")
        if token is not None and tls is None and not all(map(is_local, self.servers)):
            raise ConfigError(
                "the token in --token-file would be sent unencrypted to another machine: add "
                "--tls or --tls-ca FILE"
            )
        self._model = model
        self._tls = tls.loaded() if tls is not None else None
        self._token = token
        self._seconds = call_seconds
        self._resolve = resolve
        self._replicas: dict[str, Replica] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="replica")

    def read_state(self, *, labels: Sequence[str] = (), manifests: bool = False) -> FleetView:
        """Query every replica. Resolves names again, because pods come and go."""
        replicas, unresolved = self._members()
        views = self._pool.map(
            lambda replica: replica.read_state(labels=labels, manifests=manifests), replicas
        )
        return FleetView(replicas=[*views, *unresolved])

    def reload(self, config: ModelServerConfig, addresses: Sequence[str]) -> dict[str, str]:
        """Reload `config` on these replicas. Returns the errors of failed reloads, by address."""
        chosen = [each for each in self._members()[0] if each.address in addresses]

        def reload(replica: Replica) -> str:
            try:
                replica.reload(config, seconds=RELOAD_SECONDS)
            except DeadlineExceededError:
                return UNANSWERED
            except FeaturewireError as error:
                return " ".join(str(error).split())
            return ""

        outcomes = zip(chosen, self._pool.map(reload, chosen), strict=True)
        return {replica.address: outcome for replica, outcome in outcomes if outcome}

    def forget(self) -> None:
        """Forget the manifests of all replicas, so that the next query requests them again."""
        for replica in self._replicas.values():
            replica.forget()

    def targets(self) -> list[str]:
        """`host:port` of each replica."""
        return [replica.address for replica in self._members()[0]]

    def _members(self) -> tuple[list[Replica], list[ReplicaView]]:
        members, unresolved = [], []
        for server in self.servers:
            try:
                addresses = addresses_of(server, self._resolve)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                text = f"{server} does not resolve: {reason}"
                unresolved.append(ReplicaView(address=server, error=text))
                continue
            members += [self._member(server, address) for address in addresses]
        return list({each.address: each for each in members}.values()), unresolved

    def _member(self, server: str, address: str) -> Replica:
        with self._lock:
            if address not in self._replicas:
                tls = self._tls
                if tls is not None and tls.server_name is None and address != server:
                    # The certificate is for the name, not for the address.
                    host = server.removeprefix("dns:///").rpartition(":")[0]
                    tls = replace(tls, server_name=host)
                self._replicas[address] = Replica(
                    address,
                    model=self._model,
                    tls=tls,
                    token=self._token,
                    call_seconds=self._seconds,
                )
            return self._replicas[address]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for replica in self._replicas.values():
            replica.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
