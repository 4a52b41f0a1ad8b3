"""Batches: the status of each row, and the independence of rows."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from featurewire_exporter.preprocess import MIN_TENSORFLOW, build_preprocess
from tests.exporter.preprocess.images import (
    CONFIG,
    CORRUPT,
    EMPTY,
    OK,
    TOO_LARGE,
    UNSUPPORTED,
    WEBP_CONFIG,
    encode,
    photo,
    served,
    served_by_one_thread,
    served_graph,
    webp_claiming,
)

MIXED = [
    encode(photo()),
    b"",
    b"%PDF-1.7 this is a text",
    encode(photo())[:900],
    encode(photo(), "PNG"),
    b"BMW is not a bitmap, and is longer than any header that one might have",
    encode(photo(), "GIF"),
    encode(photo(), "BMP"),
]
MIXED_STATUS = [OK, EMPTY, UNSUPPORTED, CORRUPT, OK, UNSUPPORTED, OK, OK]


def test_one_bad_image_never_fails_its_batch_mates() -> None:
    images, status = served(CONFIG)(MIXED)
    assert status.tolist() == MIXED_STATUS
    assert images.shape == (8, 48, 64, 3)
    for row, code in zip(images, status, strict=True):
        assert row.any() == (code == OK)


def test_a_row_does_not_depend_on_its_batch_mates() -> None:
    images, status = served(CONFIG)(MIXED)
    for image, alone, code in zip(MIXED, images, status, strict=True):
        pixels, by_itself = served(CONFIG)([image])
        assert by_itself.tolist() == [code]
        np.testing.assert_array_equal(pixels[0], alone)
    backwards, _ = served(CONFIG)(MIXED[::-1])
    np.testing.assert_array_equal(backwards[::-1], images)


@pytest.mark.parametrize("batch", [[], [b""], [b"", b"x", b"\xff\xd8\xff"], [MIXED[3]] * 3])
def test_a_batch_without_a_good_image_has_only_statuses(batch: list[bytes]) -> None:
    images, status = served(CONFIG)(batch)
    assert images.shape == (len(batch), 48, 64, 3)
    assert status.shape == (len(batch),)
    assert not images.any()
    assert OK not in status


def test_a_large_batch_keeps_its_order() -> None:
    batch = [encode(photo(40 + at, 30, seed=at), "PNG") for at in range(24)]
    images, status = served(CONFIG)(batch)
    assert not status.any()
    for image, row in zip(batch, images, strict=True):
        np.testing.assert_array_equal(served(CONFIG)([image])[0][0], row)


def test_values_are_rgb_from_0_to_1() -> None:
    colours = photo().resize((64, 48))
    colours.paste((255, 0, 51), (0, 0, 64, 48))
    images, status = served(CONFIG)([encode(colours, "PNG")])
    assert status.tolist() == [OK]
    np.testing.assert_allclose(images[0], np.broadcast_to([1, 0, 0.2], (48, 64, 3)), atol=1e-6)


@pytest.mark.slow
def test_it_runs_in_a_function_and_eagerly_as_in_a_session() -> None:
    expected = served(CONFIG)(MIXED)
    preprocess = build_preprocess(CONFIG)
    traced = tf.function(preprocess, input_signature=[tf.TensorSpec([None], tf.string)])
    for run in (preprocess, traced):
        images, status = run(tf.constant(MIXED))
        np.testing.assert_array_equal(status, expected[1])
        np.testing.assert_allclose(images, expected[0], atol=1e-6)


@pytest.mark.slow
def test_one_thread_is_enough() -> None:
    _, status = served_by_one_thread(CONFIG)(MIXED * 4)
    assert status.tolist() == MIXED_STATUS * 4


@pytest.mark.parametrize("webp", [False, True])
def test_every_op_is_placed_on_the_cpu_and_is_as_old_as_promised(webp: bool) -> None:
    definition = served_graph(WEBP_CONFIG if webp else CONFIG)
    nodes = [node for node in definition.node if node.op != "Placeholder"]
    for function in definition.library.function:
        nodes += function.node_def
    assert len(nodes) > 300
    # Nodes that pass on a function's results do not have a device.
    elsewhere = {node.op for node in nodes if not node.device.endswith("CPU:0")}
    assert elsewhere <= {"Identity", "NoOp"}
    assert ("DecodeWebP" in {node.op for node in nodes}) == webp
    assert MIN_TENSORFLOW == {False: "2.16", True: "2.20"}


def test_webp_is_unsupported_unless_asked_for() -> None:
    image = encode(photo(), "WEBP", lossless=True)
    assert served(CONFIG)([image])[1].tolist() == [UNSUPPORTED]
    batch = [image, image[:200], b"RIFF____WEBP", webp_claiming(100_000, 100_000)]
    assert served(WEBP_CONFIG)(batch)[1].tolist() == [OK, CORRUPT, CORRUPT, TOO_LARGE]
