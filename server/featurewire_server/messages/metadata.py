"""GetModelMetadata: the signatures of a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featurewire._tfs.get_model_metadata_pb2 import SignatureDefMap
from featurewire._tfs.meta_graph_pb2 import SignatureDef

from ..common.errors import invalid_argument

SIGNATURE_DEF = "signature_def"
_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def check_fields(fields: Sequence[str]) -> None:
    """Raise INVALID_ARGUMENT unless `signature_def` is what is asked for."""
    if not fields:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != SIGNATURE_DEF:
            raise invalid_argument(f"Metadata field {field} is not supported")


def signature_map(signatures: Mapping[str, SignatureDef]) -> SignatureDefMap:
    found = SignatureDefMap()
    for name, signature in signatures.items():
        found.signature_def[name].CopyFrom(signature)
    return found


def fill(target: Any, signatures: Mapping[str, SignatureDef]) -> None:
    """Pack the signatures into an Any of the private pool, which `Any.Pack` is not made for."""
    target.type_url = _TYPE_URL
    target.value = signature_map(signatures).SerializeToString(deterministic=True)
