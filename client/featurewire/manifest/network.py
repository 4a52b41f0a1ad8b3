"""The parts of a version for engines other than TensorFlow: its networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurewire.manifest.files import digest_of

__all__ = ["Int8", "has_vnni", "int8", "network_digest", "networks"]

_VNNI = frozenset(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"))
"""Instruction sets that sum 8-bit products without saturation."""


@dataclass(frozen=True, kw_only=True)
class Int8:
    """A version's quantised network: two files, `network` (.xml) and its weights (.bin)."""

    network: Path
    """Path of the .xml file inside the version's folder."""
    digest: str | None
    """SHA-256 of the two files, one after the other."""
    any_processor: bool
    """Whether it also works on processors without VNNI, whose sums of 8-bit products saturate."""

    def is_intact(self, version: Path) -> bool:
        """Whether the version's files match the digest. Raises `OSError`."""
        return network_digest(version / self.network) == self.digest


def network_digest(network: Path) -> str:
    """SHA-256 of a network's .xml file and of the .bin file next to it. Raises `OSError`."""
    return digest_of(network, network.with_suffix(".bin"))


def networks(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The version's graphs for other engines: paths inside its folder, by signature.

    Empty for a version that was exported before there were any.
    """
    listed = manifest.get("networks")
    found = listed.items() if isinstance(listed, dict) else ()
    return {name: file for name, file in found if isinstance(file, str)}


def int8(manifest: Mapping[str, Any]) -> Int8 | None:
    """The version's quantised network; None if it does not have one."""
    about = manifest.get("int8")
    if not isinstance(about, dict) or not isinstance(about.get("network"), str):
        return None
    return Int8(
        network=Path(about["network"]),
        digest=about.get("digest"),
        any_processor=bool(about.get("any_processor", True)),
    )


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor sums 8-bit products without saturation; False if unknown."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    found = (line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Feat")))
    return not _VNNI.isdisjoint(next(found, ()))
