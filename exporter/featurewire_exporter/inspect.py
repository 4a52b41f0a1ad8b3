"""Reads a published version back, as text for people and as a dictionary for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from featurewire.manifest.spaces import bridges
from featurewire_exporter.errors import ExportError
from featurewire_exporter.int8.config import int8_line
from featurewire_exporter.version import manifest, warmup


def describe(version_directory: Path) -> dict[str, Any]:
    """The manifest, signatures and files of a published version. Raises `ExportError`."""
    about = manifest.read_manifest(version_directory)
    return {
        "path": str(version_directory),
        "manifest": about,
        "signatures": _signatures(version_directory),
        "files": {
            str(path.relative_to(version_directory)): path.stat().st_size
            for path in sorted(version_directory.rglob("*"))
            if path.is_file()
        },
        "warmup_records": warmup.count_records(version_directory),
    }


def card(description: dict[str, Any]) -> str:
    """A description as text, one fact per line."""
    about = description["manifest"]
    module = about["module"]
    parity = about.get("parity", {})
    height, width = about["image_size"]
    name = module["handle"]
    if module["stand_in"]:
        name = "stand-in (random weights, vectors without learned meaning)"
    size = sum(description["files"].values())
    lines = {
        "version": description["path"],
        "module": name,
        "format": f"{module.get('format', '?')}, signature {module.get('signature', '?')}",
        "images": f"{height} x {width} pixels",
        "vectors": f"{about['dimension']} floats, computed in {about['precision']}",
        "vector space": about["vector_space"],
        "preprocess": ", ".join(f"{k}={v}" for k, v in sorted(about["preprocess"].items())),
        "parity": f"max abs difference {parity.get('max_abs', float('nan')):.3g}, "
        f"cosine {parity.get('min_cosine', float('nan')):.6f} ({parity.get('limit', 'unknown')})",
        "batch sizes": ", ".join(map(str, about.get("allowed_batch_sizes", []))),
        "warm-up": f"{description['warmup_records']} records",
        "needs": f"TensorFlow Serving {about['min_serving_version']} or later",
        "exported": f"{about['created_at']} by featurewire-exporter "
        f"{about['featurewire_version']}, TensorFlow {about['tensorflow_version']}",
        "size": f"{size / 1e6:.1f} MB",
    }
    text = [f"{key:<13}{value}" for key, value in lines.items()]
    if "int8" in about:
        text.append(f"{'int8':<13}{int8_line(about['int8'])}")
    for bridge in bridges(about).values():
        text.append(
            f"{'bridge':<13}{bridge.vector_space}, of {bridge.module}: keeps "
            f"{bridge.recall_at_1:.3f} of recall@1 and {bridge.recall_at_10:.3f} of recall@10 "
            f"in an index of {bridge.index} pictures, less in a larger one"
        )
    for name, sides in description["signatures"].items():
        inputs, outputs = (
            ", ".join(f"{key} {about}" for key, about in sides[side].items())
            for side in ("inputs", "outputs")
        )
        text.append(f"{'signature':<13}{name}: {inputs} -> {outputs}")
    return "\n".join(text)


def _signatures(version_directory: Path) -> dict[str, Any]:
    path = version_directory / "saved_model.pb"
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        (meta,) = saved_model.meta_graphs
    except (OSError, DecodeError, ValueError) as error:
        raise ExportError(f"{path} cannot be read ({error}); export the version again") from error
    return {
        name: {
            "inputs": {key: _tensor(info) for key, info in sorted(signature.inputs.items())},
            "outputs": {key: _tensor(info) for key, info in sorted(signature.outputs.items())},
        }
        for name, signature in sorted(meta.signature_def.items())
    }


def _tensor(info: Any) -> str:
    sizes = ["N" if dim.size < 0 else str(dim.size) for dim in info.tensor_shape.dim]
    return f"{tf.as_dtype(info.dtype).name}[{', '.join(sizes)}]"
