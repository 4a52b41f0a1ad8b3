"""The config's entry of one model, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The version policy, the labels and the base path of a model."""

    versions: tuple[int, ...] | None
    """Versions of the policy `specific`, ascending; None for another policy."""
    labels: Mapping[str, int] = field(default_factory=dict)
    policy: str = "specific"
    """The policy's name: `specific`, `latest` or `all`."""
    base_path: str = ""
    """The path on the servers."""
