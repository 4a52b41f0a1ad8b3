"""The gate before publishing: the artifact must compute the same vectors as the module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featurewire_exporter import photos
from featurewire_exporter.errors import ParityError
from featurewire_exporter.source.module import Module
from featurewire_exporter.version.artifact import ArtifactSession

MAX_ABS = 1e-4
MAX_REL = 1e-3
MIN_FLOAT32_COSINE = 0.99999
"""All three apply in float32. An absolute bound alone passes anything if features are small."""
MAX_ABS_FRACTION = 1e-6
"""Absolute bound as a fraction of the largest number in the module's vectors. It applies above 100,
because float32 itself rounds 1000 to the nearest 6e-5."""
MIN_COSINE = 0.999
MIN_HARD_COSINE = 0.99
MAX_REDUCED_REL = 0.1
MAX_HARD_REL = 0.2
"""Limits in reduced precision. A cosine of 0.999 is a relative difference of 0.045, one of 0.99 is
0.14. The rest allows for slightly longer or shorter vectors, which a cosine does not notice."""
ZERO_LENGTH = 1e-20
"""A shorter vector counts as zero, because folding may leave 1e-30 where the module has 0."""
ALIKE_COSINE = 0.999
"""Cosine between vectors of different photos. Learned networks stay below 0.9, but exceed this with
pixels in the wrong range."""
_PROBES = {"float32": 3, "bfloat16": 9, "float16": 9}
"""Number of probes. Any image shows a wrong rewrite; the loss of precision depends on the image."""
_PROBE_JPEG = (360, 480)


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The measurements over all probes and both signatures of the artifact."""

    precision: str
    probes: int
    max_abs: float
    """Largest absolute difference of any float of any vector."""
    largest: float
    """Largest absolute float of any of the module's vectors."""
    max_rel: float
    """Largest length of a difference as a fraction of the module's vector, of photos and noise."""
    min_cosine: float
    """Smallest cosine between a vector of the artifact and the module's, of photos and noise."""
    photo_cosine: float | None = None
    """Smallest cosine between the module's vectors of two different photos."""
    hard_rel: float | None = None
    """`max_rel` of `photos.hard_images`, in reduced precision."""
    hard_cosine: float | None = None
    """`min_cosine` of `photos.hard_images`, in reduced precision."""

    @property
    def max_abs_limit(self) -> float:
        """The absolute bound in float32."""
        return max(MAX_ABS, MAX_ABS_FRACTION * self.largest)

    @property
    def limit(self) -> str:
        if self.precision == "float32":
            return (
                f"max abs difference <= {self.max_abs_limit:g}, relative difference "
                f"<= {MAX_REL:g}, cosine >= {MIN_FLOAT32_COSINE:g}"
            )
        return (
            f"relative difference <= {MAX_REDUCED_REL:g} ({MAX_HARD_REL:g} on hard images), "
            f"cosine >= {MIN_COSINE:g} ({MIN_HARD_COSINE:g} on hard images)"
        )

    @property
    def passed(self) -> bool:
        # Comparisons with NaN are false, so a NaN anywhere fails.
        if self.precision == "float32":
            close = self.max_abs <= self.max_abs_limit and self.max_rel <= MAX_REL
            return close and self.min_cosine >= MIN_FLOAT32_COSINE
        hard = self.hard_cosine is None or self.hard_cosine >= MIN_HARD_COSINE
        hard &= self.hard_rel is None or self.hard_rel <= MAX_HARD_REL
        return self.max_rel <= MAX_REDUCED_REL and self.min_cosine >= MIN_COSINE and hard

    @property
    def figures(self) -> str:
        """The measurements as text."""
        hard = ""
        if self.hard_cosine is not None:
            hard = f" ({self.hard_rel:.3g} and {self.hard_cosine:.6f} on hard images)"
        return (
            f"max abs difference {self.max_abs:.3g}, relative difference {self.max_rel:.3g}, "
            f"cosine {self.min_cosine:.6f}{hard}"
        )

    def as_manifest(self) -> dict[str, Any]:
        return {
            "probes": self.probes,
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "min_cosine": self.min_cosine,
            **({} if self.photo_cosine is None else {"photo_cosine": self.photo_cosine}),
            **({} if self.hard_rel is None else {"hard_rel": self.hard_rel}),
            **({} if self.hard_cosine is None else {"hard_cosine": self.hard_cosine}),
            "limit": self.limit,
            "passed": self.passed,
        }

    @property
    def warning(self) -> str | None:
        """Why the module looks suspicious, although the artifact computes the same."""
        if self.photo_cosine is None or self.photo_cosine < ALIKE_COSINE:
            return None
        return (
            f"the module gives nearly one vector for different photos (cosine "
            f"{self.photo_cosine:.6f} or more); if it expects pixels in another range than it was "
            "given, export it with --input-range, such as --input-range 0,255"
        )

    def require(self, advice: str) -> None:
        """Raises `ParityError` with the numbers and the advice if a limit is exceeded."""
        if not self.passed:
            raise ParityError(
                f"the artifact differs from the module: {self.figures} over {self.probes} probes, "
                f"where {self.limit} is needed for {self.precision}; {advice}"
            )


def measure(
    directory: str | Path, module: Module, *, precision: str, preprocess: Mapping[str, Any]
) -> Parity:
    """Compare the artifact in `directory`, in a TF1 Session, with the module.

    `preprocess`: its settings from the manifest; the probes stay within their limits.

    Probes are images for `image_feature_vector` (in reduced precision more of them, and hard ones),
    and one JPEG through `serving_default`. The module gets the pixels that `preprocess` returns for
    it.
    """
    images = photos.probe_images(_PROBES[precision], module.image_size)
    limits = {name: preprocess[name] for name in ("max_pixels", "max_image_bytes")}
    encoded = np.array([photos.jpeg_within(_PROBE_JPEG, **limits, seed=3)], dtype=object)
    hard = photos.hard_images(module.image_size)
    with ArtifactSession(directory) as session:
        ours = session.run("image_feature_vector", images=images)["default"]
        served, preprocessed = session.run_together(
            ["serving_default", "preprocess"], image_bytes=encoded
        )
        if precision != "float32":
            ours_hard = session.run("image_feature_vector", images=hard)["default"]
    theirs = module(np.concatenate([images, preprocessed["images"]]))
    ours = np.concatenate([ours, served["features"]])
    measured = compare(ours, theirs, precision=precision)
    # Without the noise, which is the last probe.
    of_photos = np.delete(theirs, len(images) - 1, axis=0)
    measured = replace(measured, photo_cosine=_least_cosine(of_photos))
    if precision == "float32":
        return measured
    on_hard = compare(ours_hard, module(hard), precision=precision)
    return replace(
        measured,
        probes=measured.probes + on_hard.probes,
        max_abs=max(measured.max_abs, on_hard.max_abs),
        largest=max(measured.largest, on_hard.largest),
        hard_rel=on_hard.max_rel,
        hard_cosine=on_hard.min_cosine,
    )


def _least_cosine(vectors: np.ndarray) -> float:
    """Smallest cosine between two of the rows; 1 if all rows are zeros, and so equal."""
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    if not exact.any():
        return 1.0
    units = exact / np.where(lengths > 0, lengths, 1.0)
    return float((units @ units.T).min())


def compare(ours: np.ndarray, theirs: np.ndarray, *, precision: str) -> Parity:
    """`ours` and `theirs`: float32 [probes, dimension]."""
    if ours.shape != theirs.shape:
        raise ParityError(
            f"the artifact's vectors have the shape {ours.shape[1:]}, the module's "
            f"{theirs.shape[1:]}; this is another module"
        )
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(b, axis=1)
    norms = np.linalg.norm(a, axis=1) * lengths
    # Two vectors of zeros are equal, although they lack an angle.
    both_zero = np.maximum(np.linalg.norm(a, axis=1), lengths) < ZERO_LENGTH
    cosines = np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.where(norms > 0, norms, np.nan))
    differences = np.linalg.norm(a - b, axis=1)
    relative = np.where(both_zero, 0.0, differences / np.where(lengths > 0, lengths, np.nan))
    return Parity(
        precision=precision,
        probes=len(ours),
        max_abs=float(np.max(np.abs(a - b))),
        largest=float(np.max(np.abs(b))),
        max_rel=float(np.max(relative)),
        min_cosine=float(np.min(cosines)),
    )
