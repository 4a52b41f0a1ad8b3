"""Compares two versions on one server like `rollout check`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import featurewire
from featurewire_rollout.check import CheckConfig, Report, Source, compare
from tests.support.process import ServerProcess
from tests.support.shared import SharedServer


def compared(
    server: ServerProcess | SharedServer,
    images: Path,
    stable: Mapping[str, Any],
    canary: Mapping[str, Any],
    config: CheckConfig,
) -> Report:
    """Compare two versions. `stable` and `canary` are their clients' options."""
    with (
        featurewire.Client(server.target, **stable) as old,
        featurewire.Client(server.target, **canary) as new,
    ):
        old.wait_until_ready(120)
        new.wait_until_ready(120)
        return compare(
            Source(client=old, name="stable"), Source(client=new, name="canary"), images, config
        )
