"""The vector spaces in which a version answers, as its manifest lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from featurewire._codec import Names

__all__ = ["Spaces"]


@dataclass(frozen=True, kw_only=True)
class Spaces:
    """A version's own vector space, and those that it has bridges to."""

    native: str | None
    """None where the manifest names none, or there is no manifest."""
    bridges: Mapping[str, tuple[str, int | None]]
    """By space: the signature that answers in it, and the vectors' dimension."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Spaces:
        native, listed = manifest.get("vector_space"), manifest.get("vector_spaces")
        return cls(
            native=native if isinstance(native, str) else None,
            bridges={
                each["vector_space"]: (each["signature"], each.get("dimension"))
                for each in (listed if isinstance(listed, list) else [])
                if isinstance(each, dict) and each.get("bridged") is True
                if {"vector_space", "signature"} <= each.keys()
            },
        )

    def names(self, wanted: str, asked: Names, version: int) -> Names | None:
        """What to call for vectors of the space `wanted`; None where the version has no such.

        `asked`: the tensors of the signature that the client was made with.
        """
        for space, (signature, _) in self.bridges.items():
            if signature == asked.signature:  # the client's own signature is a bridge
                return replace(asked, bridged=True) if space == wanted else None
        if self.native == wanted:
            return asked
        if wanted not in self.bridges:
            return None
        signature, dimension = self.bridges[wanted]
        return replace(
            asked, signature=signature, dimension=dimension, version=version, bridged=True
        )
