"""Settings of a rollout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from featurewire import TLSConfig


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """The config, the replicas and the model of a rollout. Times are seconds."""

    servers: Sequence[str]
    """`host:port` of each replica. A name stands for all its addresses."""
    model: str
    config: str | None = None
    """A path, or `configmap:NAMESPACE/NAME/KEY`. Only `status` and `check` work without it."""
    timeout: float = 300.0
    """Timeout of each wait for replicas to answer, to load a version or to show a label."""
    allow_missing: int = 0
    """Maximum number of replicas that may be unreachable."""
    reload: bool = True
    """Also send the config to the replicas. False: wait until they have read it."""
    base_path: str | None = None
    """Folder of the model's versions on this machine. None: the base path in the config."""
    memory_check: bool = True
    """Refuse a version that local replicas may not have the memory for."""
    trust_config: bool = False
    """Continue even if the replicas do not seem to read this config."""
    audit: str | os.PathLike[str] | None = None
    """A file to append JSON lines to, about each step."""
    tls: TLSConfig | None = None
    token: str | None = None
