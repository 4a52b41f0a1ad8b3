"""Similarities between the images of one version, and how well two versions agree on them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featurewire_rollout.check.pairs import Vectors

TIE_COSINE = 1e-6
"""Maximum difference between two cosines that count as a tie."""
FLAT_DEVIATION = 10 * TIE_COSINE
"""Maximum deviation of similarities whose order is only rounding."""


def unit(vectors: Vectors) -> Vectors:
    """The vectors scaled to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def similarities(vectors: Vectors) -> Vectors:
    """`(N, N)`: the cosine of every two rows; -2 on the diagonal."""
    unit_vectors = unit(vectors)
    matrix = unit_vectors @ unit_vectors.T
    np.fill_diagonal(matrix, -2)
    return np.asarray(matrix, np.float64)


def overlap(before: Vectors, after: Vectors, k: int) -> tuple[Vectors, Vectors]:
    """The fraction of each image's k nearest neighbours that stay, and each image's pseudo-value.

    Takes two matrices of `similarities`. Ties for a place count as kept. An image's pseudo-value
    (Tukey's jackknife) is its contribution to the mean, through its own neighbours and as a
    neighbour of other images. The mean of the pseudo-values is the overlap, and their spread gives
    the interval.
    """
    count = len(before)
    near_before, near_after = _nearest(before, k + 1), _nearest(after, k + 1)
    rows = np.arange(count)[:, None]
    kept = np.zeros(count)
    for near, other in ((near_after, before), (near_before, after)):
        least = np.partition(other, -k, axis=1)[:, -k]
        kept += (other[rows, near[:, :k]] >= least[:, None] - TIE_COSINE).sum(axis=1) / (2 * k)

    member_before = np.zeros((count, count), bool)
    member_after = np.zeros((count, count), bool)
    member_before[rows, near_before[:, :k]] = True
    member_after[rows, near_after[:, :k]] = True
    next_before, next_after = near_before[:, k], near_after[:, k]
    enters = member_after[np.arange(count), next_before].astype(float)
    entered = member_before[np.arange(count), next_after].astype(float)
    both = np.where(next_before == next_after, 1.0, enters + entered) - 1
    change = (
        np.where(member_before & member_after, both[:, None], 0)
        + np.where(member_before & ~member_after, enters[:, None], 0)
        + np.where(~member_before & member_after, entered[:, None], 0)
    )
    total = kept.sum()
    without = (total - kept + change.sum(axis=0) / k) / (count - 1)
    pseudo = total - (count - 1) * without
    return kept, pseudo - pseudo.mean() + kept.mean()


def _nearest(matrix: Vectors, k: int) -> npt.NDArray[np.int64]:
    """`(N, k)`: the columns of the k largest values of each row, the largest first.

    Ties go to the first column, so that two versions that differ by rounding agree.
    """
    order = np.argsort(-np.round(matrix / TIE_COSINE), axis=1, kind="stable")
    return np.asarray(order[:, :k])


def rank_correlation(before: Vectors, after: Vectors) -> tuple[Vectors, Vectors]:
    """Spearman's correlation of each image's similarities, and each image's pseudo-value.

    An image to which all others are equally similar counts as 1 if both versions agree on that,
    else as 0. Each image affects its own correlation and those of all others; its pseudo-value is
    the sum of both, minus the mean.
    """
    parts = _standing(before) * _standing(after)
    flat = flat_rows(before) & flat_rows(after)
    parts[flat] = (1 - np.eye(len(parts)))[flat] / (len(parts) - 1)
    own = parts.sum(axis=1)
    return own, own + parts.sum(axis=0) - own.mean()


def flat_rows(matrix: Vectors) -> npt.NDArray[np.bool_]:
    """`(N,)`: whether all others are equally similar to the image, apart from rounding."""
    count = len(matrix)
    others = matrix[~np.eye(count, dtype=bool)].reshape(count, count - 1)
    return np.asarray(others.std(axis=1) < FLAT_DEVIATION)


def _standing(matrix: Vectors) -> Vectors:
    """Each row's ranks, centred and scaled to length 1; 0 on the diagonal.

    Ties share a rank. A row without an order is all zeros.
    """
    count = len(matrix)
    ranks = np.empty((count, count - 1))
    off_diagonal = ~np.eye(count, dtype=bool)
    for row, values in enumerate(matrix):
        others = np.round(values[off_diagonal[row]] / TIE_COSINE)
        _, inverse, counts = np.unique(others, return_inverse=True, return_counts=True)
        ranks[row] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    ranks -= ranks.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(ranks, axis=1, keepdims=True)
    standing = np.zeros((count, count))
    standing[off_diagonal] = (ranks / np.where(lengths > 0, lengths, 1)).ravel()
    standing[flat_rows(matrix)] = 0
    return standing


def found(queries: Vectors, index: Vectors) -> npt.NDArray[np.bool_]:
    """Whether each query's nearest row of the index is its own; a tie counts as found."""
    matrix = unit(queries) @ unit(index).T
    return np.asarray(matrix.diagonal() >= matrix.max(axis=1) - TIE_COSINE)


def among_nearest(queries: Vectors, index: Vectors, k: int) -> npt.NDArray[np.bool_]:
    """Whether each query's own row is among the k nearest of the index.

    The own row comes last among ties, so equal vectors find nothing. A NaN finds nothing either.
    """
    matrix = unit(queries) @ unit(index).T
    ranks = (matrix >= matrix.diagonal()[:, None] - TIE_COSINE).sum(axis=1)
    return np.asarray((ranks <= k) & np.isfinite(matrix.diagonal()))
