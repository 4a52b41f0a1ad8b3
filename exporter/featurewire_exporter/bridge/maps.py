"""Maps from vectors of one space to vectors of another, fitted in closed form.

Each begins with the signed square root of every number (power normalisation: Perronnin, Sánchez,
Mensink 2010), so that few large numbers do not decide alone, and a ridge regression (Hoerl and
Kennedy 1970). The regression shrinks what it is unsure of, which moves queries towards the mean of
the old space, away from the pictures they should find; so the spread of the old vectors is given
back to it, along each of their principal axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featurewire_exporter.quality.recall import unit

KINDS = ("low-rank", "linear", "residual")
"""The simplest first: a product of two narrow matrices, one matrix, and one matrix plus a hidden
layer with random weights."""
RANK = 256
HIDDEN = 512
"""Units of the hidden layer."""
RIDGES = (0.1, 0.3, 1.0)
"""Strengths of the ridge to try, as fractions of the inputs' mean variance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Map:
    """`normalised(x) - mean`, times the factors, plus the hidden layer's and the offset."""

    kind: str
    ridge: float
    mean: np.ndarray
    """float32 `[new]`."""
    factors: tuple[np.ndarray, ...]
    """float32 matrices, `[new, old]` as a product."""
    offset: np.ndarray
    """float32 `[old]`."""
    hidden: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    """Weights `[new, hidden]`, biases `[hidden]`, weights `[hidden, old]`."""
    length: float = 1.0
    """Euclidean length of the mapped vectors: the median length of the old ones."""

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """float32 `[N, old]` for float32 `[N, new]`."""
        centred = normalised(vectors) - self.mean
        mapped = centred
        for factor in self.factors:
            mapped = mapped @ factor
        if self.hidden is not None:
            weights, biases, out = self.hidden
            mapped = mapped + np.maximum(centred @ weights + biases, 0) @ out
        return np.asarray(unit(mapped + self.offset) * self.length, np.float32)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """The signed square roots, each row at length 1."""
    return unit(np.sign(vectors) * np.sqrt(np.abs(vectors)))


def fit(
    new: np.ndarray,
    old: np.ndarray,
    *,
    kinds: Sequence[str] = KINDS,
    ridges: Sequence[float] = RIDGES,
) -> Iterator[Map]:
    """A map of each kind with each ridge. `new`, `old`: float `[N, D]`, the same views by row."""
    x, y = normalised(new.astype(np.float64)), unit(old.astype(np.float64))
    mean, offset = x.mean(axis=0), y.mean(axis=0)
    x, y = x - mean, y - offset
    axes = _axes(y)
    template = Map(
        kind="linear",
        ridge=0,
        mean=_single(mean),
        factors=(),
        offset=_single(offset),
        length=float(np.median(np.linalg.norm(old, axis=1))),
    )
    if {"linear", "low-rank"} & set(kinds):
        for ridge, matrix in _regress(x, y, axes, ridges):
            linear = replace(template, ridge=ridge, factors=(_single(matrix),))
            if "low-rank" in kinds:
                # The axes that matter are those along which the mapped vectors spread.
                kept = _axes(x @ matrix)[:, :RANK]
                factors = (_single(matrix @ kept), _single(kept.T))
                yield replace(linear, kind="low-rank", factors=factors)
            if "linear" in kinds:
                yield linear
    if "residual" in kinds:
        yield from _fit_residual(template, x, y, axes, ridges)


def _fit_residual(
    template: Map, x: np.ndarray, y: np.ndarray, axes: np.ndarray, ridges: Iterable[float]
) -> Iterator[Map]:
    random = np.random.default_rng(0)
    weights = random.normal(size=(x.shape[1], HIDDEN))
    weights /= (x @ weights).std() or 1.0
    biases = random.normal(size=HIDDEN) / 10
    # Scaled to the size of the inputs, so that one ridge suits both.
    scale = x.std() / 2
    layer = np.maximum(x @ weights + biases, 0) * scale
    shift = layer.mean(axis=0)
    both = np.hstack([x, layer - shift])
    for ridge, matrix in _regress(both, y, axes, ridges):
        linear, out = matrix[: x.shape[1]], matrix[x.shape[1] :]
        yield replace(
            template,
            kind="residual",
            ridge=ridge,
            factors=(_single(linear),),
            offset=_single(template.offset - shift @ out),
            hidden=(_single(weights), _single(biases), _single(out * scale)),
        )


def _regress(
    x: np.ndarray, y: np.ndarray, axes: np.ndarray, ridges: Iterable[float]
) -> Iterator[tuple[float, np.ndarray]]:
    """Matrices that map x to y, with the same spread along `axes` as y."""
    wide = len(x) < x.shape[1]  # then the rows' products are the smaller system
    gram = x @ x.T if wide else x.T @ x
    mean_variance = max(np.square(x).sum() / x.shape[1], 1e-12)
    wanted = (y @ axes).std(axis=0)
    for ridge in ridges:
        system = gram + ridge * mean_variance * np.eye(len(gram))
        matrix = x.T @ np.linalg.solve(system, y) if wide else np.linalg.solve(system, x.T @ y)
        along = matrix @ axes
        found = (x @ along).std(axis=0)
        some = found > 1e-6 * max(found.max(), 1e-12)
        gain = np.divide(wanted, found, out=np.ones_like(wanted), where=some)
        yield ridge, (along * gain) @ axes.T


def _axes(rows: np.ndarray) -> np.ndarray:
    """Unit columns along which centred rows spread, those of the widest spread first."""
    count = min(rows.shape)
    if len(rows) < rows.shape[1]:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        columns = rows.T @ vectors / np.sqrt(np.maximum(values, 1e-12))
        columns = columns[:, values > 1e-9 * values[-1]]
    else:
        columns = np.linalg.eigh(rows.T @ rows)[1]
    return columns[:, ::-1][:, :count]


def _single(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)
