"""Fits a bridge: embeds pictures with both versions, chooses a map, measures it and judges it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurewire_exporter.bridge.config import BridgeConfig
from featurewire_exporter.bridge.embedding import EmbeddedPictures, Say, embed_pictures
from featurewire_exporter.bridge.maps import KINDS, Map, fit
from featurewire_exporter.bridge.retention import Retention, kept_by_index
from featurewire_exporter.errors import ExportError, ParityError
from featurewire_exporter.quality.pictures import find_pictures
from featurewire_exporter.quality.recall import cutoffs, overlap, ranks, recall
from featurewire_exporter.version import manifest
from featurewire_exporter.version.artifact import ArtifactSession

TEST_FRACTION = 0.25
"""Fraction of the pictures that are held out of the fit, to measure the map."""
QUERIES = 2
"""Number of crops per held-out picture; each crop is a query."""
MIN_PICTURES = 40
"""Minimum number of pictures for a meaningful test."""
LEARNING_FRACTIONS = (0.25, 0.5, 1.0)
"""Fractions of the learned pictures, to estimate the gain from more pictures."""
RANK_TOLERANCE = 0.002
"""A simpler map wins if its mean reciprocal rank is lower by at most this."""
MIN_BASELINE_RECALL = 0.5
"""Minimum recall@10 of the new version alone; below it the test cannot judge a bridge."""
CHECK_PICTURES = 16
"""Number of pictures on which the served graph is compared with the fitted map."""
SERVED_TOLERANCE = 1e-4
"""Maximum relative difference between the two; float32 sums depend on their order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bridge:
    """A fitted map, and its measurements."""

    map: Map
    vector_space: str
    """The vector space of the older version."""
    handle: str
    """The handle of the older version's module."""
    pictures: int
    """Number of pictures that the map was learned from."""
    retention: Retention
    curve: tuple[tuple[int, float, float], ...]
    """Numbers of learned pictures, each with the fractions of recall@1 and @10 that it keeps."""
    compared: dict[str, float]
    """The mean reciprocal rank of held-out pictures for each kind of map."""

    @property
    def signature(self) -> str:
        return f"bridge_{self.vector_space}"

    @property
    def dimension(self) -> int:
        return self.map.offset.size

    def as_manifest(self) -> dict[str, Any]:
        return {
            "vector_space": self.vector_space,
            "signature": self.signature,
            "dimension": self.dimension,
            "bridged": True,
            "module": self.handle,
            "map": self.map.kind,
            "pictures": self.pictures,
            "retention": self.retention.as_manifest(),
        }

    def require(self, config: BridgeConfig) -> None:
        """Raises `ExportError` if the bridge keeps less recall than `config` requires."""
        kept = self.retention
        if kept.reembedded.at_10 < MIN_BASELINE_RECALL:
            raise ExportError(
                f"the bridge to {self.vector_space} cannot be tested with these pictures: even "
                f"with the new version alone, only {kept.reembedded.at_10:.0%} of their crops "
                "find them; give --bridge-images pictures of the kind that the model was trained "
                "on"
            )
        if kept.at_1 < config.min_recall_at_1 or kept.at_10 < config.min_recall_at_10:
            raise ExportError(
                f"the bridge to {self.vector_space} keeps {kept.at_1:.3f} of recall@1 and "
                f"{kept.at_10:.3f} of recall@10, where {config.min_recall_at_1:g} and "
                f"{config.min_recall_at_10:g} are required; give more pictures (this bridge was "
                f"fitted to {self.pictures}), or rebuild the index"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Materials:
    """The inputs of all bridges, read and checked before any long work."""

    config: BridgeConfig
    manifests: tuple[dict[str, Any], ...]
    """Manifests of the older versions, in their order."""
    pictures: Sequence[bytes]


def embed_both(config: BridgeConfig, native_space: str) -> Materials:
    """Raises `ExportError` for an older version that needs no bridge or occurs twice, and for a
    folder of too few pictures."""
    manifests: list[dict[str, Any]] = []
    for directory in config.versions:
        about = manifest.read_manifest(directory)
        space = about["vector_space"]
        if space == native_space:
            raise ExportError(
                f"{directory} has the vector space of the new version; it needs no bridge"
            )
        if any(space == other["vector_space"] for other in manifests):
            raise ExportError(f"{directory} has the vector space of another --bridge-from")
        manifests.append(about)
    pictures = find_pictures(config.images, config.max_images, option="--bridge-images")
    _check_count(len(pictures), f"{config.images} holds {len(pictures)} pictures")
    return Materials(config=config, manifests=tuple(manifests), pictures=pictures)


def fit_bridges(materials: Materials, version: Path, say: Say) -> list[Bridge]:
    """Fit a bridge from the written `version` to each older version. Raises `ExportError`."""
    config, pictures = materials.config, materials.pictures
    new = embed_pictures(version, pictures, config.views, say, "the new version")
    bridges = []
    for directory, about in zip(config.versions, materials.manifests, strict=True):
        old = embed_pictures(directory, pictures, config.views, say, str(directory))
        say(f"Fitting the bridge to {directory}")
        bridge = make_bridge(
            new, old, vector_space=about["vector_space"], handle=about["module"]["handle"]
        )
        bridge.require(config)
        bridges.append(bridge)
    return bridges


def check_served(bridges: Sequence[Bridge], version: Path, materials: Materials) -> None:
    """Raises `ParityError` if the graph in `version` computes other vectors than the maps."""
    images = np.array(list(materials.pictures[:CHECK_PICTURES]), dtype=object)
    with ArtifactSession(version) as session:
        native = session.run("serving_default", image_bytes=images)
        fine = native["status"] == 0
        for bridge in bridges:
            served = session.run(bridge.signature, image_bytes=images)["features"][fine]
            expected = bridge.map(native["features"][fine])
            difference = float(np.abs(served - expected).max(initial=0)) / bridge.map.length
            if not difference <= SERVED_TOLERANCE:
                raise ParityError(
                    f"the bridge to {bridge.vector_space} differs from the bridge that was "
                    f"measured, by {difference:.3g} of their length; report this module"
                )


def make_bridge(
    new: EmbeddedPictures, old: EmbeddedPictures, *, vector_space: str, handle: str
) -> Bridge:
    """Choose a map by part of the pictures, fit it to all but the tested ones, and measure it.

    Raises `ExportError` if too few pictures have vectors of both versions.
    """
    x, y = _whole(new.vectors, old.vectors)
    tested = np.arange(len(x)) % round(1 / TEST_FRACTION) == 0
    learned = np.flatnonzero(~tested)
    chosen, compared = choose(x[learned], y[learned])
    curve = []
    for share in LEARNING_FRACTIONS:
        # Every picture of a smaller share is in the larger ones as well.
        part = learned[: max(1, round(share * len(learned)))]
        again = fit(_rows(x[part]), _rows(y[part]), kinds=[chosen.kind], ridges=[chosen.ridge])
        fitted = next(again)
        measured = measure(fitted, x, y, np.flatnonzero(tested))
        curve.append((len(part), measured.at_1, measured.at_10))
    return Bridge(
        map=fitted,
        vector_space=vector_space,
        handle=handle,
        pictures=len(learned),
        retention=measured,
        curve=tuple(curve),
        compared=compared,
    )


def _whole(new: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pictures with vectors of both versions for all of their views."""
    whole = np.isfinite(new).all(axis=(1, 2)) & np.isfinite(old).all(axis=(1, 2))
    _check_count(int(whole.sum()), f"{whole.sum()} pictures have vectors of both versions")
    return new[whole], old[whole]


def _check_count(count: int, found: str) -> None:
    if count < MIN_PICTURES:
        raise ExportError(
            f"{found}, and a bridge needs {MIN_PICTURES} at least, some 600 to be good; "
            "give --bridge-images a folder with more"
        )


def choose(x: np.ndarray, y: np.ndarray) -> tuple[Map, dict[str, float]]:
    """Fit each kind and ridge without every fifth picture; take the map that finds most of those.

    Also returns the best score of each kind.
    """
    held = np.arange(len(x)) % 5 == 0
    queries, own = _queries(x[held])
    scores = {}
    for fitted in fit(_rows(x[~held]), _rows(y[~held])):
        scores[fitted] = recall(fitted(queries), own, y[held, 0]).reciprocal_rank
    best = {kind: max(scores[m] for m in scores if m.kind == kind) for kind in KINDS}
    kind = next(kind for kind in KINDS if best[kind] >= max(best.values()) - RANK_TOLERANCE)
    return max((m for m in scores if m.kind == kind), key=scores.__getitem__), best


def measure(fitted: Map, x: np.ndarray, y: np.ndarray, tested: np.ndarray) -> Retention:
    """Search for crops of the tested pictures among these, and among all pictures."""
    queries, own = _queries(x[tested])
    index_old, index_new = y[tested, 0], x[tested, 0]
    bridged, pictures = fitted(queries), fitted(x[tested, 0])
    comparable = x.shape[2] == y.shape[2]
    return Retention(
        queries=len(queries),
        index=len(tested),
        bridged=recall(bridged, own, index_old),
        reembedded=recall(queries, own, index_new),
        untouched=recall(queries, own, index_old) if comparable else None,
        among_learned=recall(bridged, tested[own], y[:, 0]),
        overlap_at_10=overlap(index_old, pictures, index_old),
        reembedded_overlap_at_10=overlap(index_old, index_new, index_new),
        untouched_overlap_at_10=overlap(index_old, index_new, index_old) if comparable else None,
        cutoffs=cutoffs(index_old, pictures),
        by_index=kept_by_index(
            ranks(bridged, own, index_old), ranks(queries, own, index_new), len(tested)
        ),
    )


def _queries(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The crops to search for, and each one's row in `x`."""
    return _rows(x[:, 1 : 1 + QUERIES]), np.repeat(np.arange(len(x)), QUERIES)


def _rows(vectors: np.ndarray) -> np.ndarray:
    """`[pictures, views, D]` as `[pictures * views, D]`."""
    return vectors.reshape(-1, vectors.shape[2])
