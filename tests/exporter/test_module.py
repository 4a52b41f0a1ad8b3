"""Reading modules: every format, nothing assumed, one line for what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub

from featurewire_exporter.errors import ModuleError
from featurewire_exporter.module import load_module
from tests.exporter.modules import DIMENSION, SIZE, write_tf1_hub_module, write_tf2_module


def test_a_tf1_hub_module_tells_its_size_and_dimension(tf1_module, pixels):
    module = load_module(str(tf1_module))

    assert module.image_size == SIZE
    assert module.dimension == DIMENSION
    assert (module.format, module.signature) == ("TF1 Hub", "image_feature_vector")
    expected = hub.load(str(tf1_module)).signatures["default"](tf.constant(pixels))["default"]
    np.testing.assert_array_equal(module(pixels), expected)


@pytest.mark.parametrize("use_resource", [False, True])
def test_reference_and_resource_variables_are_both_read(tmp_path, pixels, use_resource):
    module = load_module(str(write_tf1_hub_module(tmp_path / "m", use_resource=use_resource)))

    assert module(pixels).std() > 0


@pytest.mark.parametrize("order", [((), ("train",)), (("train",), ())])
def test_the_inference_variant_is_taken_whatever_the_order(tmp_path, pixels, order):
    module = load_module(str(write_tf1_hub_module(tmp_path / "m", tags=order)))

    alone = np.concatenate([module(pixels[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(module(pixels), alone, atol=1e-5)


def test_the_train_variant_would_mix_batch_mates(tf1_module, pixels):
    """So that the test above can fail."""
    train = hub.load(str(tf1_module), tags=["train"]).signatures["default"]

    together = train(tf.constant(pixels))["default"][:1]
    alone = train(tf.constant(pixels[:1]))["default"]
    assert np.abs(together - alone).max() > 1e-2


def test_a_module_with_a_train_variant_only_is_refused(tmp_path):
    directory = write_tf1_hub_module(tmp_path / "m", tags=(("train",),))

    with pytest.raises(ModuleError, match="no inference variant"):
        load_module(str(directory))


def test_a_tf2_module_with_only_call_is_read_in_inference_mode(tf2_module, pixels):
    module = load_module(str(tf2_module))

    assert (module.image_size, module.dimension) == (SIZE, DIMENSION)
    assert (module.format, module.signature) == ("SavedModel", "__call__")
    loaded = hub.load(str(tf2_module))
    np.testing.assert_allclose(module(pixels), loaded(pixels, training=False), atol=1e-6)
    assert np.abs(module(pixels) - loaded(pixels, training=True)).max() > 1e-2


def test_a_savedmodel_that_is_not_callable_is_read_by_its_signature(tmp_path):
    model = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 9, 3], tf.float32)])
    def serve(x):
        return {"anything": tf.reduce_mean(x, [1, 2])}

    tf.saved_model.save(model, str(tmp_path / "m"), signatures={"serving_default": serve})
    module = load_module(str(tmp_path / "m"))

    assert (module.image_size, module.dimension, module.signature) == ((8, 9), 3, "serving_default")


def test_a_tensorflow_1_savedmodel_is_read_by_its_signature(tmp_path, pixels):
    """As `simple_save` wrote it: the tag `serve`, reference variables, no tfhub_module.pb."""
    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        images = tf1.placeholder(tf.float32, [None, *SIZE, 3])
        weights = tf1.get_variable("w", [3, 5], use_resource=False)
        vectors = tf.matmul(tf.reduce_mean(images, [1, 2]), weights)
        session.run(tf1.global_variables_initializer())
        wanted = session.run(vectors, {images: pixels})
        path = str(tmp_path / "m")
        tf1.saved_model.simple_save(session, path, {"images": images}, {"vectors": vectors})

    module = load_module(path)
    assert (module.image_size, module.dimension) == (SIZE, 5)
    np.testing.assert_allclose(module(pixels), wanted, atol=1e-6)


def test_a_module_of_any_size_needs_to_be_told_one(tmp_path):
    directory = str(write_tf2_module(tmp_path / "m", size=(None, None)))

    with pytest.raises(ModuleError, match="--image-size"):
        load_module(directory)
    assert load_module(directory, image_size=(30, 40)).image_size == (30, 40)


def test_another_size_than_the_modules_own_is_refused(tf2_module, tf1_module):
    for directory in (tf2_module, tf1_module):
        with pytest.raises(ModuleError, match="20x24 pixels, not 30x40"):
            load_module(str(directory), image_size=(30, 40))


def _save(directory: Path, spec: tf.TensorSpec, function) -> Path:
    module = tf.Module()
    serve = tf.function(function, input_signature=[spec])
    tf.saved_model.save(module, str(directory), signatures={"serving_default": serve})
    return directory


IMAGES = tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")


@pytest.mark.parametrize(
    ("spec", "function", "text"),
    [
        (tf.TensorSpec([None], tf.string), lambda x: {"y": x}, "takes one batch of float32"),
        (tf.TensorSpec([None, 8], tf.float32), lambda x: {"y": x}, "takes one batch of float32"),
        (IMAGES, lambda x: {"y": x}, "could be the vector"),
        (IMAGES, lambda x: {"a": x[:, 0, 0], "b": x[:, 1, 1]}, "could be the vector"),
        (IMAGES, lambda x: {"default": x}, "not \\[2, dimension\\]"),
        (IMAGES, lambda x: {"y": tf.cast(x[:, 0, 0], tf.int32)}, "could be the vector"),
        (
            tf.TensorSpec([1, 8, 8, 3], tf.float32, name="images"),
            lambda x: {"y": tf.reshape(x, [1, 192])},
            "batches of any size",
        ),
    ],
)
def test_a_savedmodel_of_something_else_is_refused(tmp_path, spec, function, text):
    directory = _save(tmp_path / "m", spec, function)

    with pytest.raises(ModuleError, match=text) as caught:
        load_module(str(directory))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_module_is_refused(tmp_path):
    with pytest.raises(ModuleError, match=r"no saved_model\.pb"):
        load_module(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"not a protobuf at all", b"\xff" * 100])
def test_a_damaged_graph_is_refused(tmp_path, content):
    (tmp_path / "saved_model.pb").write_bytes(content)

    with pytest.raises(ModuleError) as caught:
        load_module(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_module_without_its_weights_is_refused(tmp_path):
    directory = write_tf1_hub_module(tmp_path / "m")
    for path in (directory / "variables").iterdir():
        path.unlink()

    with pytest.raises(ModuleError, match="cannot load") as caught:
        load_module(str(directory))
    assert "\n" not in str(caught.value)


def test_the_learned_module_is_224_pixels_and_1280_floats(learned_module):
    module = load_module(str(learned_module))

    assert (module.image_size, module.dimension) == ((224, 224), 1280)
    assert module.signature == "__call__"
