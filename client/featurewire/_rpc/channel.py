"""Open gRPC channels from a target and its configuration."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import grpc

from featurewire import __version__
from featurewire._config import ChannelConfig, TLSConfig
from featurewire._errors import ConfigError
from featurewire._rpc.target import is_local

log = logging.getLogger("featurewire")

RELOAD_SECONDS = 1.0
"""Seconds between two checks whether a TLS file has changed; a check costs microseconds."""

RETIRED_SECONDS = 300.0
"""Seconds for which calls in flight may keep using the old certificates."""

CLOSE_SECONDS = 1.0
"""Maximum seconds to wait for connections to close, which usually takes milliseconds."""

_COMPRESSION = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


def proxy_variable(server: str, config: ChannelConfig) -> str | None:
    """Return the environment variable whose proxy gRPC uses for this server, if any.

    https://github.com/grpc/grpc/blob/master/doc/environment_variables.md
    """
    enabled = dict(arguments(server, config, None)["options"]).get("grpc.enable_http_proxy", 1)
    names = ("grpc_proxy", "https_proxy", "http_proxy")
    variable = next((name for name in names if name in os.environ), None)
    if not enabled or variable is None or server.startswith("vsock:"):
        return None
    proxy = urlsplit(os.environ[variable])
    if proxy.scheme != "http" or not proxy.netloc:  # gRPC ignores others
        return None
    host = server.rpartition("/")[2].rpartition(":")[0].strip("[]").lower()
    exempt = os.environ.get("no_grpc_proxy", os.environ.get("no_proxy", ""))  # noqa: SIM112
    entries = [entry.strip().lower() for entry in exempt.split(",")]
    return None if any(entry and _is_exempt(host, entry) for entry in entries) else variable


def _is_exempt(host: str, entry: str) -> bool:
    """Whether an entry of `no_proxy` matches: the end of a host name, or a network."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return host.endswith(entry)


def arguments(server: str, config: ChannelConfig, tls: TLSConfig | None) -> dict[str, Any]:
    """Keyword arguments for gRPC's functions that create a channel."""
    service_config: dict[str, Any] = {"loadBalancingConfig": [{config.load_balancing: {}}]}
    options: dict[str, Any] = {
        "grpc.primary_user_agent": f"featurewire/{__version__}",
        "grpc.max_send_message_length": config.max_message_bytes,
        "grpc.max_receive_message_length": config.max_message_bytes,
        "grpc.keepalive_time_ms": int(config.keepalive_time * 1000),
        "grpc.keepalive_timeout_ms": int(config.keepalive_timeout * 1000),
        # gRPC does not send a keepalive ping while one of its own pings is in flight, and it waits
        # a minute for those.
        "grpc.http2.ping_timeout_ms": int(config.keepalive_timeout * 1000),
        # Ping only while calls are open, because servers close a connection that pings too often:
        # by default at the fourth ping within five minutes without a reply.
        "grpc.keepalive_permit_without_calls": 0,
        "grpc.min_reconnect_backoff_ms": int(config.connect_timeout * 1000),
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": int(config.max_reconnect_backoff * 1000),
        # This library retries itself; gRPC's own retries would add to that.
        "grpc.enable_retries": 0,
        "grpc.service_config": json.dumps(service_config),
        # Two clients in one process do not share a connection, its limits and its failures.
        "grpc.use_local_subchannel_pool": 1,
    }
    if is_local(server):
        # A proxy cannot reach our loopback interface.
        options["grpc.enable_http_proxy"] = 0
    if tls is not None and tls.server_name is not None:
        options["grpc.ssl_target_name_override"] = tls.server_name
        options["grpc.default_authority"] = tls.server_name
    options.update(config.options)
    return {"options": list(options.items()), "compression": _COMPRESSION[config.compression]}


def open_channel(server: str, config: ChannelConfig, tls: TLSConfig | None, aio: Any = None) -> Any:
    """Open a channel to one server. `tls` holds PEM bytes; `aio`: `grpc.aio`, for asyncio."""
    module: Any = aio or grpc
    # Pass arguments by name, because instrumentation that wraps gRPC's functions expects that.
    options = arguments(server, config, tls) | (
        {"interceptors": list(config.interceptors)} if aio else {}
    )
    if tls is None:
        channel = module.insecure_channel(server, **options)
    else:
        credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
        channel = module.secure_channel(server, credentials, **options)
    if aio or not config.interceptors:
        return channel
    return grpc.intercept_channel(channel, *config.interceptors)


class Channels:
    """The channels to a client's servers. Thread-safe.

    The first call opens them. When a TLS file changes, new channels replace them.
    """

    def __init__(
        self,
        servers: Sequence[str],
        config: ChannelConfig,
        tls: TLSConfig | None,
        aio: Any = None,
    ) -> None:
        """Read the files of `tls`. Raises `ConfigError`. For `aio` see `open_channel`."""
        self._servers = servers
        self._config = config
        self._aio = aio
        self._tls = tls
        self._stamp = () if tls is None else tls.stamp()
        self._loaded = None if tls is None else tls.loaded()
        self._check_at = time.monotonic() + RELOAD_SECONDS
        self._open: list[Any] = []
        self._methods: dict[tuple[int, str], Any] = {}
        self._retired: list[tuple[float, Any]] = []
        self._closing: list[Any] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Any]:
        """Yield every channel that the client must close."""
        yield from self._open
        yield from (channel for _, channel in self._retired)

    def method(self, server: int, name: str) -> Any:
        """gRPC's callable for a method of the server with that index."""
        if self._stamp and time.monotonic() >= self._check_at:
            with self._lock:
                self._reload(time.monotonic())
        method = self._methods.get((server, name))
        if method is None:
            with self._lock:
                if not self._open:
                    self._open = [
                        open_channel(each, self._config, self._loaded, self._aio)
                        for each in self._servers
                    ]
                method = self._open[server].unary_unary(name)
                self._methods[server, name] = method
        return method

    def _reload(self, now: float) -> None:
        """Read the TLS files again if they have changed."""
        if now < self._check_at or self._tls is None:
            return
        self._check_at = now + RELOAD_SECONDS
        stamp = self._tls.stamp()
        if stamp == self._stamp:
            return
        try:
            loaded = self._tls.loaded()
        except ConfigError as error:  # a file is half written; the next check reads it again
            log.warning("%s; keeping the current certificates", error)
            return
        self._stamp = stamp
        if loaded == self._loaded:
            return
        log.info("the files of TLSConfig have changed: reconnecting with the new ones")
        for retired, channel in self._retired:
            if now - retired >= RETIRED_SECONDS:
                self._leave(channel)
        kept = [each for each in self._retired if now - each[0] < RETIRED_SECONDS]
        self._retired = kept + [(now, channel) for channel in self._open]
        self._loaded, self._open, self._methods = loaded, [], {}

    def _leave(self, channel: Any) -> None:
        """Close a channel in the background."""
        if self._aio is None:
            threading.Thread(target=channel.close, daemon=True).start()
        else:
            self._closing = [each for each in self._closing if not each.done()]
            self._closing.append(asyncio.ensure_future(channel.close()))


def check_token(config: ChannelConfig, tls: TLSConfig | None, servers: Sequence[str]) -> None:
    """Raise `ConfigError` for a token that would be sent unencrypted to another machine."""
    if config.token is not None and tls is None and not all(map(is_local, servers)):
        raise ConfigError(
            "the token would be sent unencrypted to another machine",
            argument="token",
            config="ChannelConfig",
            advice="encrypt the token",
        )


def close_all(channels: Sequence[grpc.Channel]) -> None:
    """Close channels, but do not wait longer than `CLOSE_SECONDS` seconds.

    If an interrupt (Ctrl-C) comes after gRPC has registered a call and before it waits for the
    outcome, that call never ends, and `close` would wait for it forever.
    """
    until = time.monotonic() + CLOSE_SECONDS
    threads = []
    for channel in channels:
        thread = threading.Thread(target=channel.close, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, as when the interpreter ends
            channel.close()
        else:
            threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
