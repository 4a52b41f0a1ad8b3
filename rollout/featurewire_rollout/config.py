"""What a rollout needs to be told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from featurewire import TLSConfig

__all__ = ["RolloutConfig"]


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Which config, which replicas, which model. Times are seconds."""

    servers: Sequence[str]
    """`host:port`s; a name stands for all addresses that it resolves to."""
    model: str
    config: str | None = None
    """A path, or `configmap:NAMESPACE/NAME/KEY`. None: `status` and `check` only."""
    timeout: float = 300.0
    """For replicas to answer, to load a version or to show a label, each."""
    allow_missing: int = 0
    """So many replicas may give no answer."""
    reload: bool = True
    """Reload over RPC, besides what replicas read by themselves."""
    base_path: str | None = None
    """Where this machine sees the model's versions. None: where the config says."""
    memory_check: bool = True
    trust_config: bool = False
    """Go on though the replicas do not seem to read this config."""
    audit: str | os.PathLike[str] | None = None
    """A file that gets one JSON line a step."""
    tls: TLSConfig | None = None
    token: str | None = None
