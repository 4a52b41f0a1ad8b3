"""Predict requests: which tensors to send and to ask for, and their bytes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from featurewire._images import Buffer
from featurewire._tfs import model_pb2, predict_pb2, types_pb2
from featurewire._wire import tag, varint

__all__ = ["PREDICT", "Names", "RequestBuilder", "model_spec"]

PREDICT = "/tensorflow.serving.PredictionService/Predict"

_DTYPE = varint(1 << 3) + varint(types_pb2.DT_STRING)


@dataclass(frozen=True, kw_only=True)
class Names:
    """The signature in use and its tensors. `status` is None where the signature has none."""

    signature: str
    input: str
    output: str
    status: str | None
    filtered: bool = True
    """Ask for these outputs only."""
    dimension: int | None = None
    """What the signature says of the output's last axis; None: nothing."""
    version: int = 0
    """Whose signature it is."""


def model_spec(
    model: str, *, version: int | None = None, label: str | None = None, signature: str = ""
) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=model, signature_name=signature)
    if version is not None:
        spec.version.value = version
    elif label is not None:
        spec.version_label = label
    return spec


@functools.lru_cache(maxsize=64)
def _shape(count: int) -> bytes:
    """A TensorProto of `count` strings, without them."""
    size = varint(1 << 3) + varint(count)
    dim = tag(2, len(size)) + size
    return _DTYPE + tag(2, len(dim)) + dim


class RequestBuilder:
    """Makes the bytes of `PredictRequest`s that differ in their images only."""

    def __init__(self, spec: model_pb2.ModelSpec, names: Names) -> None:
        outputs = [names.output] + ([names.status] if names.status else [])
        self._head = predict_pb2.PredictRequest(
            model_spec=spec, output_filter=outputs if names.filtered else []
        ).SerializeToString()
        name = names.input.encode()
        self._key = tag(1, len(name)) + name

    def build(self, images: Sequence[Buffer]) -> bytes:
        """One request: field 2 of PredictRequest is the map entry {1: name, 2: TensorProto}."""
        shape = _shape(len(images))
        parts: list[Buffer] = [shape]
        length = len(shape)
        for image in images:
            head = tag(8, len(image))
            parts += (head, image)
            length += len(head) + len(image)
        value = tag(2, length)
        entry = tag(2, len(self._key) + len(value) + length)
        return b"".join([self._head, entry, self._key, value, *parts])
