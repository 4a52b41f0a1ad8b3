"""The stand-in is a genuine TF1 Hub module of Inception ResNet V2."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from featurewire_exporter import photos
from featurewire_exporter.progress import Progress
from featurewire_exporter.source import tf1_hub
from featurewire_exporter.source.fetch import fetch
from featurewire_exporter.source.network import Size
from featurewire_exporter.source.network_module import variable_shapes
from featurewire_exporter.source.stand_in import stand_in_variables


@pytest.fixture(scope="module")
def meta_graphs(stand_in_module):
    content = (stand_in_module / "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content).meta_graphs


@pytest.fixture(scope="module")
def module(stand_in_module):
    return tf.saved_model.load(str(stand_in_module), tags=[])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return photos.probe_images(2, (299, 299))


def test_the_files_are_those_of_a_tf1_hub_module(stand_in_module):
    assert sorted(path.name for path in stand_in_module.iterdir()) == [
        "assets",
        "assets.extra",
        "saved_model.pb",
        "tfhub_module.pb",
        "variables",
    ]
    assert (stand_in_module / "tfhub_module.pb").read_bytes() == b"\x08\x03"


def test_a_copy_of_it_is_still_known_as_the_stand_in(small_stand_in_module, tf2_module, tmp_path):
    copy = shutil.copytree(small_stand_in_module, tmp_path / "learned_they_say")
    assert fetch(str(copy), tmp_path, Progress(None)).stand_in
    assert not fetch(str(tf2_module), tmp_path, Progress(None)).stand_in


def test_there_are_two_variants_and_none_for_serving(meta_graphs):
    assert [list(meta.meta_info_def.tags) for meta in meta_graphs] == [[], ["train"]]


def test_it_announces_its_image_size_in_bytes_that_tf1_hub_reads(meta_graphs):
    for meta in meta_graphs:
        assert tf1_hub.announced_image_size(meta) == (299, 299)
        (attachment,) = meta.collection_def["hub_module_attachments"].bytes_list.value
        # name, then ImageModuleInfo { default_image_size { height: 299 width: 299 } }
        info = b"\x0a\x06\x08\xab\x02\x10\xab\x02"
        assert attachment == b"\x0a\x11image_module_info\x12\x08" + info


def test_collections_hold_what_fine_tuning_needs(meta_graphs):
    inference, train = (
        {
            key: len(getattr(value, value.WhichOneof("kind")).value)
            for key, value in meta.collection_def.items()
        }
        for meta in meta_graphs
    )
    common = {
        "variables": 896,
        "model_variables": 896,
        "trainable_variables": 488,
        "regularization_losses": 284,
        "hub_module_attachments": 1,
    }
    assert inference == common
    assert train == {**common, "update_ops": 408}
    assert not any(meta.HasField("saver_def") for meta in meta_graphs)


def test_the_signatures_are_the_common_ones(meta_graphs):
    for meta in meta_graphs:
        assert set(meta.signature_def) == {"default", "image_feature_vector"}
        for signature in meta.signature_def.values():
            assert signature.method_name == ""
            assert signature.inputs["images"].name == "images:0"
        assert list(meta.signature_def["default"].outputs) == ["default"]
        points = set(meta.signature_def["image_feature_vector"].outputs)
        assert len(points) == 13
        assert {"default", "InceptionResnetV2/Mixed_6a"} < points


def test_the_checkpoint_has_tf_slims_names(stand_in_module):
    names = dict(tf.train.list_variables(str(stand_in_module / "variables" / "variables")))

    assert len(names) == 896
    assert names["InceptionResnetV2/Conv2d_1a_3x3/weights"] == [3, 3, 3, 32]
    assert names["InceptionResnetV2/Repeat_1/block17_20/Branch_1/Conv2d_0b_1x7/weights"] == [
        1,
        7,
        128,
        160,
    ]
    assert names["InceptionResnetV2/Block8/Conv2d_1x1/biases"] == [2080]
    kinds = {re.sub(".*/", "", name) for name in names}
    assert kinds == {"weights", "biases", "beta", "moving_mean", "moving_variance"}


def test_it_has_the_parameters_of_the_network(module):
    assert sum(int(np.prod(variable.shape)) for variable in module.variables) == 54_336_736
    convolutions = [v for v in module.variables if v.name.endswith("/weights:0")]
    assert len(convolutions) == 244


def test_weights_are_the_same_for_one_seed_only():
    small = Size(divisor=8, blocks=(1, 1, 1))
    shapes = dict(list(variable_shapes(small).items())[:8])
    first, again, other = (dict(stand_in_variables(shapes, seed=seed)) for seed in (1, 1, 2))

    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        assert not np.array_equal(value, other[name])


@pytest.mark.slow
def test_statistics_and_biases_are_not_those_of_a_fresh_network(stand_in):
    for variable in tf.saved_model.load(str(stand_in.module), tags=[]).variables:
        value = variable.numpy()
        assert value.std() > 0, variable.name
        assert np.count_nonzero(value) > 0.99 * value.size


@pytest.mark.slow
def test_activations_neither_explode_nor_vanish(stand_in, images):
    module = tf.saved_model.load(str(stand_in.module), tags=[])
    outputs = module.signatures["image_feature_vector"](tf.constant(images))

    for name, value in outputs.items():
        assert 0.05 < value.numpy().std() < 20, name
        assert np.isfinite(value).all()


def test_it_is_the_network_of_keras_with_the_same_weights(module, images):
    keras = tf.keras.applications.InceptionResNetV2(
        include_top=False, weights=None, input_shape=(299, 299, 3), pooling="avg"
    )
    values = {variable.name[:-2]: variable.numpy() for variable in module.variables}
    scopes = iter(_scopes_with_norm(values))
    norms = {
        layer.input.name: layer.name
        for layer in keras.layers
        if type(layer).__name__ == "BatchNormalization"
    }
    for layer in sorted(keras.layers, key=_numbered):
        if type(layer).__name__ == "Conv2D" and not layer.use_bias:
            scope = next(scopes)
            layer.set_weights([values[f"{scope}/weights"]])
            norm = keras.get_layer(norms[layer.output.name])
            kinds = ("beta", "moving_mean", "moving_variance")
            norm.set_weights([values[f"{scope}/BatchNorm/{kind}"] for kind in kinds])
        elif type(layer).__name__ == "Conv2D":
            scope = _projection_scope(layer.name)
            layer.set_weights([values[f"{scope}/weights"], values[f"{scope}/biases"]])
    assert next(scopes, None) is None

    expected = keras.predict(images * 2 - 1, verbose=0)
    ours = module.signatures["default"](tf.constant(images))["default"]
    assert np.abs(ours - expected).max() <= 1e-4


def _scopes_with_norm(values) -> list[str]:
    """Scopes of normalised convolutions in the order of their creation."""
    scopes = [name.rsplit("/", 1)[0] for name in variable_shapes() if name.endswith("/weights")]
    return [scope for scope in scopes if f"{scope}/BatchNorm/beta" in values]


def _numbered(layer) -> tuple[int, int]:
    """Keras numbers unnamed layers in the order of their creation."""
    if layer.name == "conv_7b":
        return (1, 0)
    match = re.fullmatch(r"conv2d(?:_(\d+))?", layer.name)
    return (0, int(match[1] or 0)) if match else (2, 0)


def _projection_scope(name: str) -> str:
    block, number = re.fullmatch(r"(block\d+)_(\d+)_conv", name).groups()
    if (block, number) == ("block8", "10"):
        return "InceptionResnetV2/Block8/Conv2d_1x1"
    repeat = {"block35": "Repeat", "block17": "Repeat_1", "block8": "Repeat_2"}[block]
    return f"InceptionResnetV2/{repeat}/{block}_{number}/Conv2d_1x1"
