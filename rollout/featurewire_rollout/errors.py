"""What can go wrong in a rollout.

FeaturewireError
└── RolloutError          the root; its text says what was wrong and what to do
    ├── ConfigFileError   the config cannot be read, understood or written
    ├── ConflictError     somebody else changes the same config
    ├── PreflightError    the version must not be loaded as it is; nothing was changed
    ├── RefusedError      the step does not fit the state that the rollout is in
    ├── FleetError        replicas are missing, or did not come to what the config says
    └── SpaceError        the new version's vectors cannot be compared with the old one's
"""

from __future__ import annotations

from featurewire import FeaturewireError

__all__ = [
    "ConfigFileError",
    "ConflictError",
    "FleetError",
    "PreflightError",
    "RefusedError",
    "RolloutError",
    "SpaceError",
]


class RolloutError(FeaturewireError):
    """The root of all errors of this package."""


class ConfigFileError(RolloutError):
    """The config cannot be read, understood or written; what was there is still there."""


class ConflictError(RolloutError):
    """Somebody else is changing the config, or has changed it since it was read."""


class PreflightError(RolloutError):
    """The version must not be loaded as it is. Nothing was changed."""


class RefusedError(RolloutError):
    """The step does not fit the state that the rollout is in. Nothing was changed."""


class FleetError(RolloutError):
    """Replicas are missing, or did not come to what the config says in the time given."""


class SpaceError(RolloutError):
    """The version's vectors are of another (or an unknown) space. Nothing was changed."""
