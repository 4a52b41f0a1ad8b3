"""Configuration of TLS, and the files with its certificates and key."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from featurewire._config.checks import checked, require
from featurewire._errors import ConfigError


@checked
@dataclass(frozen=True, kw_only=True)
class TLSConfig:
    """TLS; with `cert` and `key`, mutual TLS. Each of the three is PEM: bytes, or a file's path.

    The client reads a file again after a change. Calls that begin a second later use it.
    """

    ca: bytes | os.PathLike[str] | None = None
    """Root certificates to trust. None: gRPC's built-in ones."""
    cert: bytes | os.PathLike[str] | None = None
    """The client's certificate chain."""
    key: bytes | os.PathLike[str] | None = field(default=None, repr=False)
    """The client's private key."""
    server_name: str | None = None
    """The name to expect in the server's certificate, if it is not the target's host."""

    def __post_init__(self) -> None:
        require(
            (self.cert is None) == (self.key is None),
            "TLSConfig: give both cert and key (mutual TLS), or neither",
        )
        for name in ("ca", "cert", "key"):
            value = getattr(self, name)
            require(
                value is None or isinstance(value, (bytes, os.PathLike)),
                f"expected PEM bytes or a pathlib.Path, not {type(value).__name__}",
                argument=name,
                config="TLSConfig",
            )

        require(
            self.server_name is None or (isinstance(self.server_name, str) and self.server_name),
            "expected a host name",
            argument="server_name",
            value=repr(self.server_name),
            config="TLSConfig",
        )

    def loaded(self) -> TLSConfig:
        """A copy with the contents of every file. Raises `ConfigError`."""
        loaded = replace(
            self,
            ca=_pem("ca", self.ca, "CERTIFICATE"),
            cert=_pem("cert", self.cert, "CERTIFICATE"),
            key=_pem("key", self.key, "PRIVATE KEY"),
        )
        if isinstance(self.cert, os.PathLike) and isinstance(self.key, os.PathLike):
            _check_pair(self.cert, self.key)
        return loaded

    def stamp(self) -> tuple[object, ...]:
        """Return a value that changes when a file changes; empty if there are no files."""
        return tuple(
            _stamp(each) for each in (self.ca, self.cert, self.key) if isinstance(each, os.PathLike)
        )


def _pem(name: str, source: bytes | os.PathLike[str] | None, kind: str) -> bytes | None:
    """The file's bytes. Raises `ConfigError` if they do not hold PEM of this kind."""
    if source is None:
        return None
    where = "…" if isinstance(source, bytes) else str(Path(source))
    subject = {"argument": name, "value": where, "config": "TLSConfig"}
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {where}: {error.strerror}") from error
    blocks = re.findall(rb"-----BEGIN ([A-Z0-9 ]*)-----(.*?)-----END \1-----", data, re.DOTALL)
    bodies = [_decoded(body) for label, body in blocks if label.endswith(kind.encode())]
    require(
        bool(bodies) and all(bodies),
        f"expected PEM, -----BEGIN {kind}----- and so on",
        **subject,
    )
    if kind == "PRIVATE KEY":
        require(
            all(map(_is_key, bodies)),
            "not a private key, or an encrypted one",
            **subject,
        )
    if kind == "CERTIFICATE":
        import ssl  # imported here, because it takes 10 ms and only TLS needs it

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(bodies))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"not a certificate: {error}", **subject) from error
    return data


def _check_pair(cert: os.PathLike[str], key: os.PathLike[str]) -> None:
    """Raise `ConfigError` if the key belongs to another certificate, as in mid-rotation."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        require(
            "MISMATCH" not in (error.reason or ""),
            f"the key in {Path(key)} does not belong to the certificate in {Path(cert)}",
        )
    except OSError:  # deleted since it was read
        pass


def _stamp(path: os.PathLike[str]) -> tuple[int, ...]:
    try:
        info = os.stat(path)
    except OSError:
        return ()
    return info.st_mtime_ns, info.st_size, info.st_ino


def _decoded(body: bytes) -> bytes:
    """Decode the body of a PEM block; empty if it is not base64."""
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except ValueError:
        return b""


def _is_key(der: bytes) -> bool:
    """Whether the bytes look like a private key of PKCS #1, PKCS #8 or SEC 1.

    All three are DER sequences of exactly their stated length that begin with a version number.
    """
    start = 2 + (der[1] & 0x7F if der[1:2] >= b"\x80" else 0)
    size = int.from_bytes(der[2:start] or der[1:2], "big")
    return der[:1] == b"\x30" and len(der) == start + size and der[start : start + 2] == b"\x02\x01"
