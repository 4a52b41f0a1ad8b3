"""Reads and writes TF1 Hub format, and the announcements of such a module.

It is a SavedModel whose graph variants differ by tags (`[]` and `["train"]`, never `serve`), with a
marker file, and a collection for attachments such as the image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from tensorflow.core.protobuf import saved_model_pb2

tf1 = tf.compat.v1

MARKER = "tfhub_module.pb"
MARKER_BYTES = b"\x08\x03"
"""`ModuleDef { format: FORMAT_V3 }`."""

_ATTACHMENTS = "hub_module_attachments"
_IMAGE_INFO = "image_module_info"

Signature = tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]
"""Input and output tensors by name."""


def is_tf1_hub(directory: str) -> bool:
    return tf.io.gfile.exists(f"{directory}/{MARKER}")


def meta_graph(
    *, tags: Sequence[str], signatures: Mapping[str, Signature], image_size: tuple[int, int]
) -> Any:
    """The current graph as a `MetaGraphDef` of a TF1 Hub module; `image_size` is height, width."""
    attachment = _messages()["Attachment"](
        key=_IMAGE_INFO, value=_image_info(*image_size).SerializeToString()
    )
    tf1.add_to_collection(_ATTACHMENTS, attachment.SerializeToString())
    meta = tf1.train.export_meta_graph(clear_extraneous_savers=True)
    meta.ClearField("saver_def")
    meta.meta_info_def.tags.extend(tags)
    for name, (inputs, outputs) in signatures.items():
        signature = meta.signature_def[name]
        for tensors, into in ((inputs, signature.inputs), (outputs, signature.outputs)):
            for key, tensor in tensors.items():
                into[key].CopyFrom(tf1.saved_model.build_tensor_info(tensor))
    return meta


def write_module(
    directory: Path, *, meta_graphs: Sequence[Any], variables: Mapping[str, np.ndarray]
) -> None:
    """Write a module: its graph variants, and one checkpoint with unprefixed variable names."""
    for part in ("assets", "variables"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(directory / "variables" / "variables"),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=[tf.constant(value) for value in variables.values()],
    )
    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    saved_model.meta_graphs.extend(meta_graphs)
    (directory / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    (directory / MARKER).write_bytes(MARKER_BYTES)


def announced_image_size(meta: Any) -> tuple[int, int] | None:
    """Height and width in pixels that a module's `MetaGraphDef` announces, if it does."""
    if _ATTACHMENTS not in meta.collection_def:
        return None
    messages = _messages()
    for serialized in meta.collection_def[_ATTACHMENTS].bytes_list.value:
        try:
            attachment = messages["Attachment"].FromString(serialized)
            if attachment.key == _IMAGE_INFO:
                size = messages["ImageModuleInfo"].FromString(attachment.value).default_image_size
                if size.height and size.width:
                    return size.height, size.width
        except message.DecodeError:
            continue
    return None


def _image_info(height: int, width: int) -> Any:
    info = _messages()["ImageModuleInfo"]()
    info.default_image_size.height = height
    info.default_image_size.width = width
    return info


def _messages() -> dict[str, Any]:
    """The messages of `ImageModuleInfo`, which tensorflow_hub stopped carrying in 0.13."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="featurewire_exporter/tf1_hub.proto", package="tf1_hub", syntax="proto3"
    )
    layout: dict[str, list[tuple[str, Any]]] = {
        "Attachment": [("key", field.TYPE_STRING), ("value", field.TYPE_BYTES)],
        "ImageSize": [("height", field.TYPE_UINT32), ("width", field.TYPE_UINT32)],
        "ImageModuleInfo": [("default_image_size", ".tf1_hub.ImageSize")],
    }
    for name, fields in layout.items():
        entry = file.message_type.add(name=name)
        for number, (key, kind) in enumerate(fields, start=1):
            spec = {"type": kind} if isinstance(kind, int) else {"type_name": kind, "type": 11}
            entry.field.add(name=key, number=number, label=field.LABEL_OPTIONAL, **spec)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tf1_hub.{name}"))
        for name in layout
    }
