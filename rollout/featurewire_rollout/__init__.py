"""Model version rollouts against TensorFlow Serving or the embedded server.

    with Rollout(RolloutConfig(config="models.config", servers=["localhost:8500"], model="m")) as r:
        r.start(2)
        r.promote()

Names are imported at their first use, so that `featurewire rollout --help` needs no gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurewire_rollout.config import RolloutConfig as RolloutConfig
    from featurewire_rollout.decide.phase import Status as Status
    from featurewire_rollout.errors import ConfigFileError as ConfigFileError
    from featurewire_rollout.errors import ConflictError as ConflictError
    from featurewire_rollout.errors import FleetError as FleetError
    from featurewire_rollout.errors import PreflightError as PreflightError
    from featurewire_rollout.errors import RefusedError as RefusedError
    from featurewire_rollout.errors import RolloutError as RolloutError
    from featurewire_rollout.errors import SpaceError as SpaceError
    from featurewire_rollout.steps.rollout import Rollout as Rollout

_LAZY = {
    "ConfigFileError": "errors",
    "ConflictError": "errors",
    "FleetError": "errors",
    "PreflightError": "errors",
    "RefusedError": "errors",
    "Rollout": "steps.rollout",
    "RolloutConfig": "config",
    "RolloutError": "errors",
    "SpaceError": "errors",
    "Status": "decide.phase",
}

__all__ = [*_LAZY]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'featurewire_rollout' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featurewire_rollout.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
