"""The config's entry of one model, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Entry"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the config says about one model."""

    versions: tuple[int, ...] | None
    """The versions of the policy `specific`, ascending; None with another policy."""
    labels: Mapping[str, int] = field(default_factory=dict)
    policy: str = "specific"
    """The policy's name: `specific`, `latest` or `all`."""
    base_path: str = ""
    """As the servers see it."""
