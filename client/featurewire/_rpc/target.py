"""Split a target into servers: one gRPC URI, or a list with commas."""

from __future__ import annotations

import ipaddress

from featurewire._errors import ConfigError


def split_target(target: str) -> list[str]:
    """The servers of a target: one URI, or `host:port` entries separated by commas.

    gRPC's own lists (`ipv4:a,b`) only take addresses; this list also takes host names.
    """
    if not isinstance(target, str):
        raise ConfigError(
            "expected a str such as 'localhost:8500'", argument="target", value=repr(target)
        )
    for scheme in ("http://", "https://", "grpc://", "grpcs://"):
        if target.startswith(scheme):
            raise ConfigError(
                f"give host:port without {scheme}",
                argument="target",
                value=repr(target),
                advice="encrypt",
            )
    if _is_uri(target):
        return [target]
    servers = [server.strip() for server in target.split(",")]
    for server in servers:
        _check_server(server)
    if len(set(servers)) < len(servers):
        raise ConfigError("it lists a server twice", argument="target", value=repr(target))
    return servers


def _is_uri(target: str) -> bool:
    scheme, colon, rest = target.partition(":")
    return bool(colon) and (
        rest.startswith("//") or scheme in ("ipv4", "ipv6", "unix", "unix-abstract", "vsock", "dns")
    )


def _check_server(server: str) -> None:
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in server:
        raise ConfigError(
            "expected host:port, such as 'localhost:8500', several separated by commas, or a "
            "gRPC target URI such as 'dns:///features.example:8500'",
            argument="target",
            value=repr(server),
        )


def is_local(server: str) -> bool:
    """Whether the connection stays on this machine."""
    scheme, _, rest = server.partition(":")
    if not _is_uri(server):
        rest = server
    elif scheme in ("unix", "unix-abstract"):
        return True
    elif scheme not in ("ipv4", "ipv6", "dns"):  # the destination is unknown
        return False
    return all(map(_is_loopback, rest.rpartition("/")[2].split(",")))


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
