"""The replicas: who they are, what all of them serve, and a config for all of them."""

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

__all__ = ["UNANSWERED", "Fleet", "addresses_of"]

RELOAD_SECONDS = 60.0
"""A reload waits for models that are new in the list, not for new versions of a model."""
UNANSWERED = f"no answer within {RELOAD_SECONDS:g} s"
"""How a reload that came to its deadline is told from one that was refused."""

Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host name, IPv4 where there is any (a host has one of each kind)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    four = [str(each[4][0]) for each in found if each[0] == socket.AF_INET]
    six = [f"[{each[4][0]}]" for each in found if each[0] == socket.AF_INET6]
    return sorted(dict.fromkeys(four or six))


def addresses_of(server: str, resolve: Resolve = resolve) -> list[str]:
    """The replicas behind one `host:port`: a name may resolve to several.

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
                "the token in --token-file would travel in the clear to another machine: add --tls "
                "or --tls-ca FILE"
            )
        self._model = model
        self._tls = tls.loaded() if tls is not None else None
        self._token = token
        self._seconds = call_seconds
        self._resolve = resolve
        self._replicas: dict[str, Replica] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="replica")

    def look(self, *, labels: Sequence[str] = (), manifests: bool = False) -> FleetView:
        """What every replica serves. Names are resolved anew: pods come and go."""
        replicas, unresolved = self._members()
        views = self._pool.map(
            lambda replica: replica.look(labels=labels, manifests=manifests), replicas
        )
        return FleetView(replicas=[*views, *unresolved])

    def reload(self, config: ModelServerConfig, addresses: Sequence[str]) -> dict[str, str]:
        """Have the replicas at `addresses` take `config`; the ones that refuse, and why."""
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
        """Ask every replica for its manifests anew."""
        for replica in self._replicas.values():
            replica.forget()

    def targets(self) -> list[str]:
        """Where the replicas listen, as a client takes it."""
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
                    # The certificate names the host that was asked for.
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
