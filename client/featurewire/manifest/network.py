"""How an engine other than TensorFlow runs a version: its split, and its network in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurewire.manifest import ManifestError
from featurewire.manifest.files import digest_of

__all__ = ["Int8", "Split", "has_vnni", "int8", "network_digest", "split"]

_VNNI = frozenset(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"))
"""Instruction sets whose sums of 8-bit products do not saturate."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where preprocessing ends and the network begins."""

    preprocess: str
    """The signature from encoded images to pixels."""
    network: str
    """The signature from pixels to vectors."""
    input: str
    """The tensor that the network takes."""
    output: str
    """The tensor that it gives."""


@dataclass(frozen=True, kw_only=True)
class Int8:
    """The quantised network of a version: two files, `network` (.xml) and its weights (.bin)."""

    network: Path
    """Within the version's folder."""
    digest: str | None
    """SHA-256 of the two files, one after the other."""
    any_processor: bool
    """Also for processors without VNNI, whose sums of 8-bit products saturate."""

    def is_intact(self, version: Path) -> bool:
        """Whether the files of the version have the digest. Raises `OSError`."""
        return network_digest(version / self.network) == self.digest


def network_digest(network: Path) -> str:
    """SHA-256 of a network's .xml file and of the .bin file next to it. Raises `OSError`."""
    return digest_of(network, network.with_suffix(".bin"))


def split(manifest: Mapping[str, Any]) -> Split:
    """How the version splits. Raises `ManifestError`."""
    try:
        return Split(**manifest["split"])
    except (KeyError, TypeError) as exc:
        raise ManifestError(f"does not say how the version splits ({exc})") from exc


def int8(manifest: Mapping[str, Any]) -> Int8 | None:
    """The version's quantised network; None where it has none."""
    about = manifest.get("int8")
    if not isinstance(about, dict) or not isinstance(about.get("network"), str):
        return None
    return Int8(
        network=Path(about["network"]),
        digest=about.get("digest"),
        any_processor=bool(about.get("any_processor", True)),
    )


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether sums of 8-bit products do not saturate on this processor; False if unknown."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    found = (line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Feat")))
    return not _VNNI.isdisjoint(next(found, ()))
