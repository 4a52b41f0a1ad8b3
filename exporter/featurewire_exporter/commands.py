"""The commands by name, as entry points and `python -m featurewire_exporter` run them."""

from __future__ import annotations

from featurewire_exporter.cli.export import export
from featurewire_exporter.cli.inspect import inspect
from featurewire_exporter.cli.verify import verify

__all__ = ["export", "inspect", "verify"]
