"""Split a target such as `a:8500,b:8500` into its servers."""

from __future__ import annotations

from featurewire._rpc.target import is_local, split_target

__all__ = ["is_local", "split_target"]
