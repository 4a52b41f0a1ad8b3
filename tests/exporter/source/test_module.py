"""Reading modules in every format, with one line for folders that are not modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from featurewire_exporter import commands
from featurewire_exporter.errors import ModuleError
from featurewire_exporter.graph.freeze import freeze
from featurewire_exporter.source.module import load_module
from tests.exporter.modules import (
    DIMENSION,
    SIZE,
    run_frozen,
    write_tf1_hub_module,
    write_tf2_module,
)


def test_a_tf1_hub_module_tells_its_size_and_dimension(tf1_module, pixels):
    module = load_module(str(tf1_module))

    assert module.image_size == SIZE
    assert module.dimension == DIMENSION
    assert (module.format, module.signature) == ("TF1 Hub", "image_feature_vector")
    loaded = tf.saved_model.load(str(tf1_module), tags=[])
    expected = loaded.signatures["default"](tf.constant(pixels))["default"]
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
    """Prove that the test above can fail."""
    train = tf.saved_model.load(str(tf1_module), tags=["train"]).signatures["default"]

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
    loaded = tf.saved_model.load(str(tf2_module))
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
    """Written by `simple_save`: the tag `serve`, reference variables, no tfhub_module.pb."""
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


def _with_signatures(directory: Path, *names: str, dtype: tf.DType = tf.float32) -> str:
    """A module without `__call__`. Each signature returns the colours' means times its position,
    and the one named `words` takes strings."""
    module = tf.Module()

    def signature(place: int):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 9, 3], dtype)])
        def serve(images):
            return {"vectors": tf.reduce_mean(images, [1, 2]) * tf.cast(place + 1, dtype)}

        return serve

    signatures = {name: signature(place) for place, name in enumerate(names)}
    if "words" in names:
        signatures["words"] = tf.function(
            lambda x: {"length": tf.strings.length(x)},
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
    tf.saved_model.save(module, str(directory), signatures=signatures)
    return str(directory)


IMAGE = np.ones([1, 8, 9, 3], np.float32)


def test_several_signatures_of_unknown_names_are_refused_by_name(tmp_path):
    directory = _with_signatures(tmp_path / "m", "embed_images", "classify", "words")

    with pytest.raises(ModuleError, match=r"\(classify, embed_images\).* --signature NAME"):
        load_module(directory)


@pytest.mark.parametrize(("name", "place"), [("embed_images", 1), ("classify", 2)])
def test_the_named_signature_gives_the_vectors(tmp_path, name, place):
    directory = _with_signatures(tmp_path / "m", "embed_images", "classify", "words")

    module = load_module(directory, signature=name)
    assert module.signature == name
    assert module(IMAGE)[0, 0] == place


def test_one_unknown_signature_among_others_is_taken(tmp_path):
    directory = _with_signatures(tmp_path / "m", "words", "embed_images")

    assert load_module(directory).signature == "embed_images"


def test_a_known_signature_is_taken_before_unknown_ones(tmp_path):
    directory = _with_signatures(tmp_path / "m", "classify", "serving_default")

    assert load_module(directory).signature == "serving_default"
    assert load_module(directory, signature="classify").signature == "classify"


def test_a_callable_module_can_be_read_by_call_and_by_signature(tmp_path):
    directory = str(write_tf2_module(tmp_path / "m", signature=True))

    assert load_module(directory).signature == "__call__"
    assert load_module(directory, signature="serving_default").signature == "serving_default"
    assert load_module(directory, signature="__call__").signature == "__call__"


def test_a_tf1_module_is_read_by_the_named_signature(tf1_module, pixels):
    default, named = load_module(str(tf1_module)), load_module(str(tf1_module), signature="default")

    assert named.signature == "default"
    np.testing.assert_array_equal(named(pixels), default(pixels))


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        ("embed", r"has no signature 'embed'; it has classify, words"),
        ("words", r"none of its signatures \(words\) takes one batch of float32 images"),
        ("__call__", r"has no signature '__call__'"),
    ],
)
def test_a_named_signature_that_cannot_be_used_is_refused(tmp_path, signature, text):
    directory = _with_signatures(tmp_path / "m", "classify", "words")

    with pytest.raises(ModuleError, match=text):
        load_module(directory, signature=signature)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_a_module_in_another_float_type_is_refused_by_its_type(tmp_path, dtype):
    directory = _with_signatures(tmp_path / "m", "serving_default", dtype=dtype)

    with pytest.raises(ModuleError, match=f"takes images in {dtype.name} .*only float32"):
        load_module(directory)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_vectors_in_another_float_type_are_refused_by_their_type(tmp_path, dtype):
    directory = _save(
        tmp_path / "m", IMAGES, lambda x: {"y": tf.cast(tf.reduce_mean(x, [1, 2]), dtype)}
    )

    with pytest.raises(ModuleError, match=f"returns vectors in {dtype.name}, and only float32"):
        load_module(str(directory))


@pytest.mark.parametrize("bounds", [(0.0, 255.0), (-1.0, 1.0), (-127.5, 127.5)])
@pytest.mark.parametrize("fixture", ["tf1_module", "tf2_module"])
def test_pixels_are_scaled_to_the_range_that_the_module_expects(request, pixels, fixture, bounds):
    directory = str(request.getfixturevalue(fixture))
    low, high = bounds

    scaled = load_module(directory, input_range=bounds)
    plain = load_module(directory)
    np.testing.assert_allclose(
        scaled(pixels), plain(pixels * (high - low) + low), rtol=1e-5, atol=1e-3
    )
    np.testing.assert_allclose(
        run_frozen(freeze(scaled), pixels), scaled(pixels), rtol=1e-4, atol=1e-3
    )


def test_errors_call_a_module_by_its_handle(tmp_path):
    directory = _with_signatures(tmp_path / ".hidden", "classify", "embed")

    with pytest.raises(ModuleError, match=r"^module\.tar\.gz has several signatures"):
        load_module(directory, handle="module.tar.gz")


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


def _keras_model(*layers):
    images = tf.keras.Input((24, 24, 3))
    net = images
    for layer in (*layers, tf.keras.layers.Conv2D(5, 3), tf.keras.layers.GlobalAveragePooling2D()):
        net = layer(net)
    return tf.keras.Model(images, net)


AUGMENTATIONS = {
    "random_flip": lambda name: tf.keras.layers.RandomFlip(name=name),
    "random_contrast": lambda name: tf.keras.layers.RandomContrast(0.1, name=name),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_keras_layer_that_augments_is_refused_by_name(tmp_path, name):
    """Keras' own export keeps these layers active."""
    _keras_model(AUGMENTATIONS[name](name)).export(str(tmp_path / "m"), verbose=False)

    with pytest.raises(ModuleError, match=rf"its layer {name}\S* \(.*training=False\)") as caught:
        freeze(load_module(str(tmp_path / "m")))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_keras_model_saved_for_inference_is_frozen_with_such_layers(tmp_path, name):
    model = _keras_model(AUGMENTATIONS[name](name), tf.keras.layers.Dropout(0.5))
    archive = tf.keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        lambda images: model(images, training=False),
        [tf.keras.InputSpec(shape=(None, 24, 24, 3), dtype="float32")],
    )
    archive.write_out(str(tmp_path / "m"), verbose=False)

    assert commands.export([str(tmp_path / "m"), str(tmp_path / "out")]) == 0


def _counting_module(*, used: bool):
    """A module that counts its calls; with `used`, its vectors depend on the count."""

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = tf.Variable(0.0)

        @tf.function(input_signature=[IMAGES])
        def __call__(self, images):
            with tf.name_scope("counter"):
                self.calls.assign_add(1.0)
            vectors = tf.reduce_mean(images, [1, 2])
            return vectors + self.calls if used else vectors

    return Module()


def test_a_variable_that_no_vector_depends_on_may_change(tmp_path):
    tf.saved_model.save(_counting_module(used=False), str(tmp_path / "m"))

    network = freeze(load_module(str(tmp_path / "m")))
    assert not [node.op for node in network.graph_def.node if node.op.startswith("Assign")]
    # The graph can be imported; a graph that assigns to a constant cannot.
    np.testing.assert_allclose(run_frozen(network, np.ones([2, 8, 8, 3])), 1)


def test_a_variable_that_changes_the_vectors_is_refused(tmp_path):
    tf.saved_model.save(_counting_module(used=True), str(tmp_path / "m"))

    with pytest.raises(ModuleError, match=r"its layer counter .*AssignAddVariableOp"):
        freeze(load_module(str(tmp_path / "m")))


def test_a_layer_that_draws_with_a_counted_seed_is_refused_by_name(tmp_path):
    """Draw random numbers like Keras' augmentation layers."""

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seed = tf.Variable([7, 0])

        @tf.function(input_signature=[IMAGES])
        def __call__(self, images):
            with tf.name_scope("flip"):
                drawn = tf.random.stateless_uniform([3], self.seed.read_value())
                self.seed.assign_add([0, 1])
            return tf.reduce_mean(images, [1, 2]) * drawn

    tf.saved_model.save(Module(), str(tmp_path / "m"))
    with pytest.raises(ModuleError, match=r"its layer flip \(.*training=False\)") as caught:
        freeze(load_module(str(tmp_path / "m")))
    assert "\n" not in str(caught.value)


def test_random_numbers_in_a_branch_that_is_never_taken_do_no_harm(tmp_path):
    """Random operations of dropout, in networks that check at run time whether they are trained."""
    training = tf.Variable(False)

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.training = training

        @tf.function(input_signature=[IMAGES])
        def __call__(self, images):
            means = tf.reduce_mean(images, [1, 2])
            return tf.cond(self.training, lambda: means + tf.random.uniform([3]), lambda: means)

    tf.saved_model.save(Module(), str(tmp_path / "m"))
    network = freeze(load_module(str(tmp_path / "m")))
    np.testing.assert_allclose(run_frozen(network, np.ones([2, 8, 8, 3])), 1)


@pytest.mark.parametrize("draw", [tf.random.uniform, tf.random.normal, tf.random.truncated_normal])
def test_a_module_that_draws_random_numbers_is_refused(tmp_path, draw):
    def serve(images):
        with tf.name_scope("noise"):
            return {"y": tf.reduce_mean(images, [1, 2]) + draw([3])}

    directory = _save(tmp_path / "m", IMAGES, serve)
    with pytest.raises(ModuleError, match=r"layer (noise|random|truncated)"):
        freeze(load_module(str(directory)))
