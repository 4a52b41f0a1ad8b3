"""The errors of a rollout.

FeaturewireError
└── RolloutError          the root; its text gives the reason and the fix
    ├── ConfigFileError   the config cannot be read, understood or written
    ├── ConflictError     another operator changes the same config
    ├── PreflightError    the version must not be loaded; nothing was changed
    ├── RefusedError      the step does not fit the state of the rollout
    ├── FleetError        replicas are missing, or did not reach the state of the config
    └── SpaceError        the new version's vectors cannot be compared with the old one's
"""

from __future__ import annotations

from featurewire import FeaturewireError


class RolloutError(FeaturewireError):
    """The root of all errors of this package."""


class ConfigFileError(RolloutError):
    """The config cannot be read, parsed or written. The old text is still there."""


class ConflictError(RolloutError):
    """Another operator is changing the config, or has changed it since it was read."""


class PreflightError(RolloutError):
    """The version must not be loaded in its present state. Nothing was changed."""


class RefusedError(RolloutError):
    """The step does not fit the state of the rollout. Nothing was changed."""


class FleetError(RolloutError):
    """Replicas are missing, or did not reach the state of the config in time."""


class SpaceError(RolloutError):
    """The version's vectors are in another or an unknown space. Nothing was changed."""
