"""Changes that the name of a vector space covers, and changes that it ignores."""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from featurewire.manifest.spaces import scheme_of
from featurewire_exporter.errors import ExportError
from featurewire_exporter.graph.digest import graph_digest
from featurewire_exporter.graph.freeze import FrozenNetwork, freeze
from featurewire_exporter.preprocess import PreprocessConfig
from featurewire_exporter.progress import Progress
from featurewire_exporter.source.fetch import fetch
from featurewire_exporter.source.module import load_module
from featurewire_exporter.version.vector_space import vector_space, weights_digest
from tests.exporter.modules import SIZE, write_tf2_module
from tests.exporter.source.hub_server import running_hub

tf1 = tf.compat.v1

WEIGHTS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4, dtype=np.float32)]
CONFIG = PreprocessConfig(height=299, width=299)
KERNEL = np.random.default_rng(1).normal(size=[3, 3, 3, 4]).astype(np.float32)
CHANGED = KERNEL.copy()
CHANGED[1, 2, 0, 3] = np.nextafter(CHANGED[1, 2, 0, 3], np.float32(9))


def network_of(build: Callable[[tf.Tensor], tf.Tensor], images: str = "images") -> FrozenNetwork:
    """A frozen network of `build(images) -> [N, D]`."""
    with tf.Graph().as_default() as graph:
        output = build(tf1.placeholder(tf.float32, [None, 12, 10, 3], name=images))
        return FrozenNetwork(graph_def=graph.as_graph_def(), input=images, output=output.name)


def conv(images: tf.Tensor, kernel: np.ndarray = KERNEL, padding: str = "SAME") -> tf.Tensor:
    return tf.nn.relu(tf.nn.conv2d(images * 2.0 - 1.0, kernel, 1, padding))


def mean(net: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(net, [1, 2])


def plain(images: tf.Tensor) -> tf.Tensor:
    return mean(conv(images))


def in_a_function(build: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """`build` as a function in the graph."""
    return tf.function(build, autograph=False)


def conditional(images: tf.Tensor, *, above: float = 0.5, swapped: bool = False) -> tf.Tensor:
    """Features scaled by one constant for bright images and another for dark ones."""
    values = (2.0, 3.0) if not swapped else (3.0, 2.0)
    bright = tf.reduce_mean(images) > above
    branches = [lambda: tf.constant(values[0]), lambda: tf.constant(values[1])]
    return plain(images) * tf1.cond(bright, *branches)


def looped(images: tf.Tensor, *, times: int = 3, step: float = 0.5) -> tf.Tensor:
    return tf.while_loop(
        lambda count, _: count < times,
        lambda count, net: (count + 1, net * step),
        (tf.constant(0), plain(images)),
    )[1]


def in_tf1_control_flow(build: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """`build` with the Switch and Merge operations of TensorFlow 1."""

    def built(images: tf.Tensor) -> tf.Tensor:
        tf1.disable_control_flow_v2()
        try:
            return build(images)
        finally:
            tf1.enable_control_flow_v2()

    return built


TWINS = {
    "a swapped channel": lambda x: plain(tf.gather(x, [2, 1, 0], axis=-1)),
    "two other channels swapped": lambda x: plain(tf.gather(x, [0, 2, 1], axis=-1)),
    "another pooling": lambda x: tf.reduce_max(conv(x), [1, 2]),
    "pooling over one side first": lambda x: tf.reduce_mean(tf.reduce_mean(conv(x), 1), 1),
    "an added L2 norm": lambda x: tf.math.l2_normalize(plain(x), -1),
    "another scaling": lambda x: mean(
        tf.nn.relu(tf.nn.conv2d(x * 2.0 - 0.5, KERNEL, 1, padding="SAME"))
    ),
    "no scaling": lambda x: mean(tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, padding="SAME"))),
    "one changed weight": lambda x: mean(conv(x, CHANGED)),
    "an earlier layer's output": lambda x: mean(
        tf.nn.conv2d(x * 2.0 - 1.0, KERNEL, 1, padding="SAME")
    ),
    "another padding": lambda x: mean(conv(x, padding="VALID")),
    "another activation": lambda x: mean(
        tf.nn.relu6(tf.nn.conv2d(x * 2.0 - 1.0, KERNEL, 1, padding="SAME"))
    ),
    "operands exchanged": lambda x: mean(
        tf.nn.relu(tf.nn.conv2d(1.0 - x * 2.0, KERNEL, 1, padding="SAME"))
    ),
    "a function with another constant": in_a_function(
        lambda x: mean(tf.nn.relu(tf.nn.conv2d(x * 2.0 - 1.5, KERNEL, 1, padding="SAME")))
    ),
    "a branch": conditional,
    "another condition": lambda x: conditional(x, above=0.6),
    "branches exchanged": lambda x: conditional(x, swapped=True),
    "a branch of TensorFlow 1": in_tf1_control_flow(conditional),
    "another condition of TensorFlow 1": in_tf1_control_flow(lambda x: conditional(x, above=0.6)),
    "branches exchanged in TensorFlow 1": in_tf1_control_flow(
        lambda x: conditional(x, swapped=True)
    ),
    "a loop": looped,
    "a longer loop": lambda x: looped(x, times=4),
    "a loop over something else": lambda x: looped(x, step=0.25),
    "a loop of TensorFlow 1": in_tf1_control_flow(looped),
    "a longer loop of TensorFlow 1": in_tf1_control_flow(lambda x: looped(x, times=4)),
    "another loop of TensorFlow 1": in_tf1_control_flow(lambda x: looped(x, step=0.25)),
}


def test_twins_that_differ_in_one_thing_have_other_digests() -> None:
    digests = {name: graph_digest(network_of(build)) for name, build in TWINS.items()}
    digests["none of these"] = graph_digest(network_of(plain))

    same: dict[str, list[str]] = {}
    for name, digest in digests.items():
        same.setdefault(digest, []).append(name)
    assert [names for names in same.values() if len(names) > 1] == []


def renamed(images: tf.Tensor) -> tf.Tensor:
    with tf.name_scope("another"), tf.device("/GPU:0"):
        return plain(images)


def reordered(images: tf.Tensor) -> tf.Tensor:
    kernel, unused = tf.constant(KERNEL), tf.constant(7.0)
    one, two = tf.constant(1.0), tf.constant(2.0)
    del unused
    return mean(tf.nn.relu(tf.nn.conv2d(images * two - one, kernel, 1, "SAME")))


def with_identities(images: tf.Tensor) -> tf.Tensor:
    (net,) = tf.identity_n([conv(tf.identity(images), tf.identity(KERNEL))])
    return tf.stop_gradient(mean(net))


def with_a_wait(images: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.no_op(), tf.debugging.assert_all_finite(images, "x")]):
        return plain(images)


SAME = {
    "other names and devices": renamed,
    "another order": reordered,
    "identities": with_identities,
    "waits": with_a_wait,
    "a function": in_a_function(plain),
    "a function in a function": in_a_function(lambda x: in_a_function(plain)(x)),
}


@pytest.mark.parametrize("build", SAME.values(), ids=SAME)
def test_how_a_graph_is_written_down_does_not_count(build: Callable[..., tf.Tensor]) -> None:
    assert graph_digest(network_of(build, "pixels")) == graph_digest(network_of(plain))


def test_defaults_that_are_spelled_out_do_not_count() -> None:
    network = network_of(plain)
    stripped = network_of(plain)
    (convolution,) = (node for node in stripped.graph_def.node if node.op == "Conv2D")
    for attribute in ("data_format", "dilations", "explicit_paddings", "use_cudnn_on_gpu"):
        del convolution.attr[attribute]
    convolution.attr["_of_another_release"].i = 1

    assert graph_digest(stripped) == graph_digest(network)
    convolution.attr["data_format"].s = b"NCHW"
    assert graph_digest(stripped) != graph_digest(network)


def space_of(directory: Path) -> str:
    module = load_module(str(directory))
    return vector_space(freeze(module), CONFIG.as_manifest())


def test_a_module_has_one_space_wherever_it_comes_from(
    tmp_path: Path, tf2_module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "module.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tf2_module, ".")
    unpacked = fetch(str(archive), tmp_path, Progress(None)).directory

    assert space_of(Path(unpacked)) == space_of(tf2_module)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    with running_hub() as hub:
        handle = hub.serve("/plain/1", archive.read_bytes())
        fetch(handle, tmp_path, Progress(None))
        asked = len(hub.requests)
        cached = fetch(handle, tmp_path, Progress(None)).directory
        assert len(hub.requests) == asked
    assert space_of(Path(cached)) == space_of(tf2_module)
    again = write_tf2_module(tmp_path / "again")
    assert space_of(again) == space_of(tf2_module)


def test_a_module_behind_exchanged_channels_is_another_space(
    tmp_path: Path, tf2_module: Path
) -> None:
    class Exchanged(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = tf.saved_model.load(str(tf2_module))

        @tf.function(input_signature=[tf.TensorSpec([None, *SIZE, 3], tf.float32)])
        def __call__(self, images):
            return self.module(tf.gather(images, [2, 1, 0], axis=-1), training=False)

    tf.saved_model.save(Exchanged(), str(tmp_path / "exchanged"))
    networks = [freeze(load_module(str(path))) for path in (tf2_module, tmp_path / "exchanged")]
    settings = CONFIG.as_manifest()

    names = {vector_space(network, settings) for network in networks}
    assert {scheme_of(name) for name in names} == {"graph-1"}
    assert len(names) == 2
    # The older scheme, which published versions keep, gives both the same name.
    older = {vector_space(network, settings, scheme="weights-1") for network in networks}
    assert {scheme_of(name) for name in older} == {"weights-1"}
    assert len(older) == 1


def test_a_name_of_an_unknown_scheme_says_which_release_to_use() -> None:
    with pytest.raises(ExportError, match=r"'graph-9'.*use the release that exported"):
        vector_space(network_of(plain), {}, scheme="graph-9")


def test_order_names_and_structure_of_the_weights_do_not_count() -> None:
    ones = [np.ones(8, np.float32), np.zeros([2, 2], np.float32), np.array(0.17, np.float32)]
    indices = [np.array([1, 2], np.int32)]

    assert weights_digest(WEIGHTS) == weights_digest([*WEIGHTS[::-1], *ones, *indices])


@pytest.mark.parametrize(
    "changed",
    [
        [WEIGHTS[0] + np.float32(1e-6), WEIGHTS[1]],
        [WEIGHTS[0].T.copy(), WEIGHTS[1]],
        [WEIGHTS[0].reshape(3, 2), WEIGHTS[1]],
        [WEIGHTS[0]],
        [*WEIGHTS, WEIGHTS[1]],
    ],
    ids=["value", "transposed", "shape", "fewer", "more"],
)
def test_any_change_of_the_weights_counts(changed: list[np.ndarray]) -> None:
    assert weights_digest(changed) != weights_digest(WEIGHTS)


OTHER: dict[str, Any] = {
    "input_range": (0.0, 255.0),
    "height": 298,
    "width": 298,
    "resize_method": "bicubic",
    "antialias": False,
    "central_crop": 0.875,
    "max_pixels": 10,
    "max_image_bytes": 10,
    "exif_orientation": False,
    "webp": True,
}


@pytest.mark.parametrize("scheme", ["graph-1", "weights-1"])
def test_every_setting_of_the_preprocessing_counts(scheme: str) -> None:
    network = network_of(plain)
    names = [vector_space(network, CONFIG.as_manifest(), scheme=scheme)]
    for field in dataclasses.fields(PreprocessConfig):
        changed = dataclasses.replace(CONFIG, **{field.name: OTHER[field.name]})
        names.append(vector_space(network, changed.as_manifest(), scheme=scheme))
    assert len(set(names)) == len(names)
    settings = dict(reversed(CONFIG.as_manifest().items()))
    assert vector_space(network, settings, scheme=scheme) == names[0]
