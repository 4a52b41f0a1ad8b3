"""TF-Slim checkpoints: heads are ignored, and all other variables must match by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from featurewire_exporter.commands import export
from featurewire_exporter.errors import ModuleError
from featurewire_exporter.progress import Progress
from featurewire_exporter.source.fetch import fetch
from featurewire_exporter.source.network_module import variable_shapes
from featurewire_exporter.source.slim_checkpoint import write_slim_module

HEADS = {
    "InceptionResnetV2/Logits/Logits/weights": (1536, 1001),
    "InceptionResnetV2/Logits/Logits/biases": (1001,),
    "InceptionResnetV2/AuxLogits/Conv2d_1b_1x1/weights": (1, 1, 1088, 128),
    "InceptionResnetV2/AuxLogits/Logits/biases": (1001,),
    "InceptionResnetV2/Conv2d_1a_3x3/weights/RMSProp_1": (3, 3, 3, 32),
}


def write_checkpoint(path: Path, tensors: dict[str, np.ndarray]) -> str:
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return str(path)


def zeros(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def refusal(checkpoint: str, tmp_path: Path) -> str:
    with pytest.raises(ModuleError) as caught:
        write_slim_module(checkpoint, tmp_path / "module")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "module").exists()
    return str(caught.value)


@pytest.fixture(scope="module")
def checkpoint(stand_in_module, tmp_path_factory) -> str:
    """The stand-in's weights in TF-Slim's training format, with heads and a step."""
    reader = tf.train.load_checkpoint(str(stand_in_module / "variables" / "variables"))
    tensors = {name: reader.get_tensor(name) for name in variable_shapes()}
    tensors |= zeros(HEADS) | {"global_step": np.array(7, np.int64)}
    path = tmp_path_factory.mktemp("slim") / "inception_resnet_v2_2016_08_30.ckpt"
    return write_checkpoint(path, tensors)


def test_a_checkpoint_becomes_the_module_of_its_weights(checkpoint, stand_in_module, tmp_path):
    source = fetch(checkpoint, tmp_path, Progress(None), kind="slim-checkpoint")
    module = Path(source.directory)

    assert (source.handle, source.stand_in) == (checkpoint, False)
    assert (module / "tfhub_module.pb").exists()
    ours, theirs = (
        tf.train.load_checkpoint(str(path / "variables" / "variables"))
        for path in (module, stand_in_module)
    )
    assert ours.get_variable_to_shape_map() == theirs.get_variable_to_shape_map()
    for name in variable_shapes():
        np.testing.assert_array_equal(ours.get_tensor(name), theirs.get_tensor(name))


@pytest.mark.slow
def test_missing_and_surplus_variables_are_named(tmp_path):
    shapes = dict(variable_shapes())
    shapes.pop("InceptionResnetV2/Conv2d_7b_1x1/weights")
    shapes = {name: (1,) if len(shape) == 4 else shape for name, shape in shapes.items()}
    tensors = zeros(shapes) | zeros({"InceptionResnetV2/Extra/weights": (2,), **HEADS})

    text = refusal(write_checkpoint(tmp_path / "c.ckpt", tensors), tmp_path)
    assert "misses InceptionResnetV2/Conv2d_7b_1x1/weights" in text
    assert "also has InceptionResnetV2/Extra/weights" in text
    assert re.search(r"in another shape InceptionResnetV2/\S+, \S+, \S+ and 240 more", text)
    assert "Logits" not in text


def test_a_checkpoint_of_one_file_is_read(stand_in_module, tmp_path):
    """A checkpoint in TensorFlow's first format, from before 2017."""
    reader = tf.train.load_checkpoint(str(stand_in_module / "variables" / "variables"))
    values = {name: reader.get_tensor(name) for name in variable_shapes()}
    path = str(tmp_path / "inception_resnet_v2_2016_08_30.ckpt")
    tf.raw_ops.Save(filename=path, tensor_names=list(values), data=list(values.values()))

    module = write_slim_module(path, tmp_path / "module")
    ours = tf.train.load_checkpoint(str(module / "variables" / "variables"))
    name = "InceptionResnetV2/Conv2d_7b_1x1/weights"
    np.testing.assert_array_equal(ours.get_tensor(name), values[name])


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_checkpoint_without_its_weights_is_one_line(checkpoint, tmp_path, damage):
    for path in Path(checkpoint).parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:100_000])
    if damage == "removed":
        next(tmp_path.glob("*.data*")).unlink()

    text = refusal(str(tmp_path / Path(checkpoint).name), tmp_path)
    assert "cannot be read" in text or "not a checkpoint" in text


@pytest.mark.parametrize("content", [None, b"no checkpoint"])
def test_what_is_no_checkpoint_is_one_line(tmp_path, content, capsys):
    path = tmp_path / "x.ckpt"
    if content:
        path.write_bytes(content)

    assert "not a checkpoint" in refusal(str(path), tmp_path)
    arguments = [str(path), str(tmp_path / "m"), "--from", "slim-checkpoint"]
    assert export(arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "m").exists()
