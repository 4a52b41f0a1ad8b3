"""Handles rows (dimension 0): merges the inputs of several requests, and checks the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from featurewire_server.common.errors import failed_precondition, invalid_argument


def common_rows(inputs: Mapping[str, np.ndarray]) -> int:
    """The common dimension 0 of all inputs; 0 without inputs.

    Raises INVALID_ARGUMENT if the inputs cannot be batched.
    """
    if not inputs:
        return 0
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension.")
    sizes = {array.shape[0] for array in inputs.values()}
    if len(sizes) > 1:
        raise invalid_argument(
            f"Batching Run() input tensors must have equal 0th-dimension size; got {sorted(sizes)}."
        )
    return int(sizes.pop())


def merge(pieces: Sequence[Mapping[str, np.ndarray]], rows: int) -> dict[str, np.ndarray]:
    """Concatenate the inputs of all pieces, then repeat the first row to fill up to `rows`.

    Pieces that differ beyond dimension 0 are first padded at the end to the largest shape.
    """
    merged = {}
    for name in pieces[0]:
        arrays = _same_shape([piece[name] for piece in pieces])
        have = sum(len(array) for array in arrays)
        if rows > have:
            arrays = [*arrays, np.repeat(arrays[0][:1], rows - have, axis=0)]
        merged[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return merged


def _same_shape(arrays: list[np.ndarray]) -> list[np.ndarray]:
    if len({array.shape[1:] for array in arrays}) == 1:
        return arrays
    largest = np.max([array.shape[1:] for array in arrays], axis=0)
    padded = []
    for array in arrays:
        fill = b"" if array.dtype == object else 0
        whole = np.full((len(array), *largest), fill, dtype=array.dtype)
        whole[tuple(slice(size) for size in array.shape)] = array
        padded.append(whole)
    return padded


def check_rows(values: Mapping[str, np.ndarray], rows: int) -> None:
    """Raise FAILED_PRECONDITION unless every output has `rows` rows."""
    for name, array in values.items():
        if array.ndim == 0 or array.shape[0] != rows:
            raise failed_precondition(
                f"Batched output tensor's 0th dimension does not equal the sum of the 0th "
                f"dimension sizes of the input tensors: {name} has the shape "
                f"{list(array.shape)}, the batch {rows} rows"
            )


def refused_rows(values: Mapping[str, np.ndarray]) -> int:
    """Number of NaN rows in an artifact's vectors: refused images, which skipped the network."""
    vectors = [array for array in values.values() if array.dtype.kind == "f" and array.ndim == 2]
    return max((int(np.isnan(array[:, :1]).sum()) for array in vectors), default=0)
