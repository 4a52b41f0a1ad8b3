"""The gate: what differs from its module is not published."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from featurewire_exporter import export as export_steps
from featurewire_exporter import photos
from featurewire_exporter.commands import export
from featurewire_exporter.errors import ParityError
from featurewire_exporter.parity import Parity, compare

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
        assert compare(ours * 3, theirs, precision=precision).passed is passed


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


def test_another_shape_is_another_module():
    with pytest.raises(ParityError, match="another module"):
        compare(A, A[:, :4], precision="float32")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_that_came_out_wrong_is_not_published(
    tmp_path, tf2_module, monkeypatch, capsys, precision
):
    """An error in folding: the network of another module of the same shape."""
    from featurewire_exporter.freeze import freeze
    from featurewire_exporter.module import load_module
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
        precision="bfloat16", probes=20, max_abs=0.1, min_cosine=0.9995, hard_cosine=0.995
    )
    assert good.passed
    assert good.as_manifest()["hard_cosine"] == 0.995
    for measured in (
        replace(good, hard_cosine=0.98),
        replace(good, hard_cosine=float("nan")),
        replace(good, min_cosine=0.998),
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
