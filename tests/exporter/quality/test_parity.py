"""The parity gate: a version that differs from its module is not published."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from featurewire_exporter import export as export_steps
from featurewire_exporter import photos
from featurewire_exporter.commands import export
from featurewire_exporter.errors import ParityError
from featurewire_exporter.quality.parity import Parity, compare

A = np.random.default_rng(0).normal(size=[3, 5]).astype(np.float32)


def test_equal_vectors_pass():
    parity = compare(A, A.copy(), precision="float32")

    assert (parity.max_abs, parity.passed) == (0.0, True)
    assert parity.min_cosine == pytest.approx(1.0)


@pytest.mark.parametrize(("difference", "passed"), [(9e-5, True), (1.1e-4, False)])
def test_float32_is_held_to_1e_4(difference, passed):
    other = A.copy()
    other[2, 4] += np.float32(difference)

    assert compare(other, A, precision="float32").passed is passed


@pytest.mark.parametrize(("angle", "passed"), [(0.044, True), (0.046, False)])
def test_reduced_precision_is_held_to_a_cosine_of_0_999(angle, passed):
    theirs = np.array([[1.0, 0.0]], np.float32)
    ours = np.array([[np.cos(angle), np.sin(angle)]], np.float32)

    for precision in ("bfloat16", "float16"):
        assert compare(ours, theirs, precision=precision).passed is passed


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0])
def test_a_vector_of_another_length_fails_at_any_scale(precision, scale):
    theirs = A * np.float32(scale)
    limit = {"float32": 1e-3}.get(precision, 0.1)

    assert not compare(theirs * np.float32(1 + 1.2 * limit), theirs, precision=precision).passed
    if scale < 1e-1:  # at 1 the absolute limit is stricter
        assert compare(theirs * np.float32(1 + 0.8 * limit), theirs, precision=precision).passed


def test_float32_is_held_to_a_relative_bound_and_a_cosine():
    theirs = (A * 1e-8).astype(np.float32)
    shifted = theirs + np.float32(1e-7)
    measured = compare(shifted, theirs, precision="float32")

    assert measured.max_abs < 1e-4
    assert not measured.passed
    with pytest.raises(ParityError, match=r"relative difference <= 0.001, cosine >= 0.99999"):
        measured.require("do this")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_no_number_never_passes(value, precision):
    broken = A.copy()
    broken[0, 0] = value

    with np.errstate(invalid="ignore"):
        assert not compare(broken, A, precision=precision).passed


def test_vectors_of_zeros_are_equal_to_zeros_only():
    zeros = np.zeros_like(A)

    assert compare(zeros, zeros, precision="bfloat16").passed
    assert not compare(zeros, A, precision="bfloat16").passed


@pytest.mark.parametrize(("error", "passed"), [(2e-4, True), (2e-3, False)])
def test_large_features_may_differ_by_a_millionth(error, passed):
    large = np.linspace(1, 1000, 24, dtype=np.float32).reshape(2, 12)
    measured = compare(large + np.float32(error), large, precision="float32")
    assert measured.passed is passed


def test_another_shape_is_another_module():
    with pytest.raises(ParityError, match="another module"):
        compare(A, A[:, :4], precision="float32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_that_came_out_wrong_is_not_published(
    tmp_path, tf2_module, monkeypatch, capsys, precision
):
    """Simulate an error in folding with the network of another module of the same shape."""
    from featurewire_exporter.graph.freeze import freeze
    from featurewire_exporter.source.module import load_module
    from tests.exporter.modules import write_tf2_module

    other = freeze(load_module(str(write_tf2_module(tmp_path / "other", seed=3))))
    fold = vars(export_steps)["fold"]
    monkeypatch.setattr(export_steps, "fold", lambda _network: fold(other))

    base = tmp_path / "m"
    assert export([str(tf2_module), str(base), "--precision", precision]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"featurewire export: the artifact differs .*difference [\d.e+-]+, cosine -?[\d.]+ .*\n",
        error,
    )
    assert not base.exists()


def test_reduced_precision_is_also_judged_by_hard_images() -> None:
    good = Parity(
        precision="bfloat16",
        probes=20,
        largest=1.0,
        max_abs=0.1,
        max_rel=0.03,
        min_cosine=0.9995,
        hard_rel=0.1,
        hard_cosine=0.995,
    )
    assert good.passed
    assert good.as_manifest()["hard_cosine"] == 0.995
    for measured in (
        replace(good, hard_cosine=0.98),
        replace(good, hard_cosine=float("nan")),
        replace(good, min_cosine=0.998),
        replace(good, max_rel=0.11),
        replace(good, hard_rel=0.21),
        replace(good, hard_rel=float("nan")),
    ):
        with pytest.raises(ParityError, match=r"on hard images.*; do this$"):
            measured.require("do this")


def test_hard_images_differ_and_fit_any_size() -> None:
    for size in ((1, 1), (20, 24), (299, 299)):
        images = photos.hard_images(size)
        assert images.shape == (10, *size, 3)
        assert images.dtype == np.float32
        assert np.isfinite(images).all()
        assert images.min() >= 0
        assert images.max() <= 1


def _write_module(directory, build) -> str:
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 20, 24, 3], tf.float32)])
        def __call__(self, images):
            return build(images)

    tf.saved_model.save(Module(), str(directory))
    return str(directory)


@pytest.mark.parametrize(
    "scale",
    [1e-4, 1e-8, 1e-16],
)
@pytest.mark.slow
def test_features_far_below_one_keep_their_direction(tmp_path, scale):
    kernel = np.random.default_rng(0).normal(size=[3, 3, 3, 8]).astype(np.float32)

    def build(images):
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME") * scale), [1, 2])

    module = _write_module(tmp_path / "module", build)
    assert export([module, str(tmp_path / "m")]) == 0
    about = json.loads((tmp_path / "m/1/assets.extra/featurewire.json").read_text())
    assert about["parity"]["min_cosine"] > 0.99999
    assert about["parity"]["max_rel"] < 1e-3


def _write_rescaling_module(directory) -> str:
    """The module expects pixels from 0 to 255, like many networks of Keras."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=[3, 3, 3, 8]).astype(np.float32)
    bias = random.normal(size=[8]).astype(np.float32)

    def build(images):
        net = tf.nn.conv2d(images / 127.5 - 1.0, kernel, 1, "VALID") + bias
        return tf.reduce_mean(tf.nn.relu(net), [1, 2])

    return _write_module(directory, build)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "warned"), [([], True), (["--input-range", "0,255"], False)])
def test_pixels_of_the_wrong_range_are_warned_of(tmp_path, capsys, options, warned):
    module = _write_rescaling_module(tmp_path / "module")
    assert export([module, str(tmp_path / "m"), *options]) == 0

    said = capsys.readouterr()
    assert ("nearly one vector for different photos" in said.err) == warned
    assert ("--input-range 0,255" in said.err) == warned
    about = json.loads((tmp_path / "m/1/assets.extra/featurewire.json").read_text())
    assert (about["parity"]["photo_cosine"] >= 0.999) == warned


@pytest.mark.slow
@pytest.mark.parametrize(("divisor", "warned"), [(1.0, False), (255.0, True)])
def test_a_learned_network_is_warned_of_in_the_wrong_range_only(
    learned_module, tmp_path, capsys, divisor, warned
):
    learned = tf.saved_model.load(str(learned_module))

    class Wrapped(tf.Module):
        def __init__(self):
            super().__init__()
            self.learned = learned

        @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.float32)])
        def __call__(self, images):
            return self.learned(images / divisor)

    tf.saved_model.save(Wrapped(), str(tmp_path / "module"))
    assert export([str(tmp_path / "module"), str(tmp_path / "m"), "--max-batch-size", "1"]) == 0
    assert ("nearly one vector" in capsys.readouterr().err) == warned


@pytest.mark.slow
def test_a_module_of_zeros_gives_one_vector_to_all_photos(tmp_path, capsys):
    module = _write_module(tmp_path / "module", lambda x: tf.reduce_mean(x, [1, 2]) * 0.0)

    assert export([module, str(tmp_path / "m")]) == 0
    assert "nearly one vector" in capsys.readouterr().err
