"""Versions with deliberate faults fail the check, with a learned network and real pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurewire_rollout.check import Pairs, Side, Thresholds, judge, to_text
from tests.support.learned import IMAGE_SIZE, read_weights, write_learned_module
from tests.support.pictures import write_tiles

IMAGES = 60
SIZE = IMAGE_SIZE["lite0"]


def strongest_filter() -> int:
    """The filter of the first convolution with the largest weights."""
    weights = read_weights("lite0")
    scale = np.abs(weights["_bn0.weight"]) / np.sqrt(weights["_bn0.running_var"] + 1e-3)
    return int((np.abs(weights["_conv_stem.weight"]).sum(axis=(1, 2, 3)) * scale).argmax())


@pytest.fixture(scope="module")
def vectors(photos: list[Path], learned_module: Path, tmp_path_factory) -> dict[str, np.ndarray]:
    """The vectors of the same pictures by version, `[60, 1280]`."""
    import tensorflow as tf

    from featurewire_exporter.preprocess import PreprocessConfig, build_preprocess

    folder = tmp_path_factory.mktemp("faults")
    tiles = write_tiles(photos, folder / "tiles", IMAGES, sides=(0.6, 0.9))
    encoded = tf.constant([path.read_bytes() for path in sorted(tiles.iterdir())])
    pixels, plain = (
        build_preprocess(PreprocessConfig(height=SIZE, width=SIZE, antialias=smooth))(encoded)[0]
        for smooth in (True, False)
    )
    network = tf.saved_model.load(str(learned_module))
    worse = write_learned_module(folder / "worse", zero_filters=[strongest_filter()])
    made = {
        "itself": network(pixels),
        "antialias off": network(plain),
        "red and blue exchanged": network(pixels[..., ::-1]),
        "a filter zeroed": tf.saved_model.load(str(worse))(pixels),
    }
    return {name: np.asarray(rows, np.float64) for name, rows in made.items()}


@pytest.mark.parametrize(
    ("canary", "outcome"),
    [
        ("itself", "pass"),
        ("antialias off", "fail"),
        ("red and blue exchanged", "fail"),
        ("a filter zeroed", "fail"),
    ],
)
def test_what_was_made_worse_fails(vectors, canary: str, outcome: str) -> None:
    def side(name: str, version: int, rows: np.ndarray) -> Side:
        times = np.full(IMAGES, 0.1)
        return Side(name=name, version=version, vectors=rows, latencies=times)

    pairs = Pairs(
        model="lite0",
        names=tuple(map(str, range(IMAGES))),
        stable=side("stable", 1, vectors["itself"]),
        canary=side("canary", 2, vectors[canary]),
    )
    report = judge(pairs, Thresholds())
    assert report.verdict.outcome == outcome, to_text(report)
