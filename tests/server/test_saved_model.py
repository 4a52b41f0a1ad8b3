"""Signatures are read from a SavedModel without TensorFlow, and without its graph."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from featurewire_server.engines.saved_model import read_signatures


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two meta graphs: `serve` with the signature `a`, and `serve`, `gpu` with `b`."""
    model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    for tags, name in ((["serve"], "a"), (["serve", "gpu"], "b")):
        meta = model.meta_graphs.add()
        meta.meta_info_def.tags.extend(tags)
        meta.graph_def.node.add(name="x" * 300, op="Placeholder")
        meta.signature_def[name].inputs["images"].name = f"{name}:0"
    path = tmp_path / "saved_model.pb"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("tags", "name"), [(["serve"], "a"), (["gpu", "serve"], "b")])
def test_the_meta_graph_with_the_tags_is_read(file: Path, tags, name) -> None:
    found = read_signatures(file, tags)
    assert found is not None
    assert {key: each.inputs["images"].name for key, each in found.items()} == {name: f"{name}:0"}


def test_other_tags_find_nothing(file: Path) -> None:
    assert read_signatures(file, ["train"]) is None


def test_a_cut_or_wrong_file_is_no_saved_model(file: Path) -> None:
    data = file.read_bytes()
    for wrong in (data[:-1], data[: len(data) // 2], b"\xff" * 20, b"garbage", b""):
        file.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"not a SavedModel|empty file"):
            read_signatures(file, ["serve"])
