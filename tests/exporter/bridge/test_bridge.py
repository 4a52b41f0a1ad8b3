"""Bridges: maps between vector spaces, their retained recall, and versions that serve them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import featurewire
from featurewire_exporter.bridge.config import BridgeConfig
from featurewire_exporter.bridge.embedding import EmbeddedPictures
from featurewire_exporter.bridge.fit import make_bridge, measure
from featurewire_exporter.bridge.maps import KINDS, fit
from featurewire_exporter.bridge.report import report
from featurewire_exporter.commands import export, inspect
from featurewire_exporter.errors import ExportError
from featurewire_exporter.quality.recall import recall
from featurewire_exporter.version.artifact import ArtifactSession
from tests.support.learned import write_learned_module
from tests.support.pictures import write_tiles
from tests.support.process import serving

LOOSE = BridgeConfig(versions=(), images=Path())


def spaces(pictures: int, shared: float) -> tuple[EmbeddedPictures, EmbeddedPictures]:
    """Vectors of two networks for 3 views per picture; `shared` sets how similar the networks
    are."""
    random = np.random.default_rng(0)

    def causes() -> np.ndarray:
        of_picture, of_view = random.normal(size=(pictures, 1, 24)), (pictures, 3, 24)
        return of_picture + 0.3 * random.normal(size=of_view)

    same = causes()

    def network(dimension: int) -> np.ndarray:
        seen = shared * same + (1 - shared) * causes()
        return np.maximum(seen @ random.normal(size=(24, dimension)), 0).astype(np.float32)

    return EmbeddedPictures(vectors=network(64)), EmbeddedPictures(vectors=network(96))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_map_reaches_a_space_of_another_dimension(kind):
    new, old = (each.vectors for each in spaces(400, shared=1.0))
    (fitted,) = fit(
        new[100:].reshape(-1, 64), old[100:].reshape(-1, 96), kinds=[kind], ridges=[0.1]
    )
    bridged = fitted(new[:100, 1])
    assert fitted.kind == kind
    assert bridged.shape == (100, 96)
    assert bridged.dtype == np.float32
    lengths = np.linalg.norm(bridged, axis=1)
    np.testing.assert_allclose(lengths, np.median(np.linalg.norm(old, axis=2)), rtol=0.1)
    assert recall(bridged, np.arange(100), old[:100, 0]).at_10 > 0.9


def test_a_bridge_between_similar_networks_keeps_the_stated_retention():
    new, old = spaces(400, shared=1.0)
    bridge = make_bridge(new, old, vector_space="f" * 32, handle="old")
    bridge.require(LOOSE)
    about = bridge.as_manifest()
    assert about["signature"] == "bridge_" + "f" * 32
    assert about["retention"]["recall_at_10"] > 0.95
    assert bridge.pictures == 300
    assert [size for size, _ in about["retention"]["recall_at_1_by_index"]] == [25, 50, 100]
    assert [count for count, *_ in bridge.curve] == [75, 150, 300]
    assert bridge.compared.keys() == set(KINDS)


@pytest.mark.slow
def test_retention_is_stated_for_smaller_indexes_as_measured_in_them():
    new, old = (each.vectors for each in spaces(1000, shared=0.7))
    fitted = next(fit(new[:200].reshape(-1, 64), old[:200].reshape(-1, 96), kinds=["linear"]))

    def kept(count: int) -> float:
        """Mean over disjoint indexes of `count` pictures each."""
        starts = range(200, 1000, count)
        parts = [measure(fitted, new, old, np.arange(at, at + count)) for at in starts]
        return float(np.mean([part.at_1 for part in parts]))

    stated = measure(fitted, new, old, np.arange(200, 1000)).by_index
    assert [size for size, _ in stated] == [200, 400, 800]
    for size, share in stated:
        assert share == pytest.approx(kept(size), abs=0.03)


@pytest.mark.parametrize(
    "shared", [0.6, *(pytest.param(each, marks=pytest.mark.slow) for each in (0.55, 0.7))]
)
def test_retention_in_a_larger_index_is_estimated(shared):
    new, old = (each.vectors for each in spaces(1000, shared=shared))
    fitted = next(fit(new[:200].reshape(-1, 64), old[:200].reshape(-1, 96), kinds=["linear"]))

    small = measure(fitted, new, old, np.arange(200, 400))
    large = measure(fitted, new, old, np.arange(200, 1000))
    assert small.at_1_in(800) == pytest.approx(large.at_1, abs=0.06)
    assert large.at_1 < small.at_1 - 0.05


def test_an_index_too_small_to_show_a_trend_gives_no_estimate():
    new, old = spaces(40, shared=1.0)
    bridge = make_bridge(new, old, vector_space="f" * 32, handle="old")
    assert bridge.retention.at_1_in(1000) is None
    assert "A larger index" not in report(bridge)


@pytest.mark.slow
def test_the_report_compares_the_maps_and_the_gain_of_more_pictures():
    new, old = spaces(400, shared=0.55)
    text = report(make_bridge(new, old, vector_space="f" * 32, handle="old"))
    assert "no bridge" not in text  # of another dimension
    for name in ("bridged queries", "everything embedded again", "learned from 75 pictures"):
        assert name in text
    for name in ("kept by the bridge, 100 in the index", "with 25 in the index"):
        assert name in text
    assert re.search(r"keeps less: about 0\.\d\d of recall@1 with 400 and 0\.\d\d", text)
    for name in ("overlap@10", "Maps compared", "residual ", "Twice as many would keep about 0."):
        assert name in text
    assert "no bridge, old index" in report(make_bridge(new, new, vector_space="f", handle="old"))


def test_a_bridge_between_unrelated_networks_is_refused():
    bridge = make_bridge(*spaces(400, shared=0.0), vector_space="f" * 32, handle="old")
    assert bridge.retention.at_1 < 0.2
    with pytest.raises(
        ExportError, match=r"keeps 0\.\d+ of recall@1 .* 0\.8 and 0\.95 are required"
    ):
        bridge.require(LOOSE)


@pytest.mark.slow
def test_pictures_that_the_new_network_cannot_tell_apart_are_no_test():
    new, old = spaces(400, shared=1.0)
    new.vectors[:] = np.random.default_rng(1).random(new.vectors.shape)
    bridge = make_bridge(new, old, vector_space="f" * 32, handle="old")
    with pytest.raises(ExportError, match="cannot be tested with these pictures"):
        bridge.require(LOOSE)


def test_pictures_without_a_vector_are_skipped_too_few_are_refused():
    new, old = spaces(60, shared=1.0)
    new.vectors[:10, 1] = np.nan
    assert make_bridge(new, old, vector_space="f" * 32, handle="old").retention.index == 13
    old.vectors[20:40] = np.nan
    with pytest.raises(ExportError, match="30 pictures have vectors of both versions"):
        make_bridge(new, old, vector_space="f" * 32, handle="old")


@pytest.fixture(scope="module")
def pictures(photos, tmp_path_factory) -> Path:
    return write_tiles(photos, tmp_path_factory.mktemp("tiles") / "images", 44)


@pytest.fixture(scope="module")
def bridged(learned_module, other_learned_module, pictures, tmp_path_factory) -> Path:
    """Base path with Lite0 as version 1, and Lite1 with a bridge to it as version 2."""
    base = tmp_path_factory.mktemp("bridged") / "lite"
    assert export([str(learned_module), str(base), "--max-batch-size", "1"]) == 0
    options = ["--max-batch-size", "1", "--bridge-views", "3", "--bridge-min-recall", "0.1,0.3"]
    options += ["--bridge-from", str(base / "1"), "--bridge-images", str(pictures)]
    assert export([str(other_learned_module), str(base), *options]) == 0
    return base


def test_a_bridge_from_random_weights_is_refused_and_not_published(
    bridged, pictures, tmp_path, capsys
):
    def shuffle(weights: dict[str, np.ndarray]) -> None:
        random = np.random.default_rng(0)
        for values in weights.values():
            random.shuffle(values.reshape(-1))

    module = write_learned_module(tmp_path / "module", change=shuffle)
    options = ["--bridge-from", str(bridged / "1"), "--bridge-images", str(pictures)]
    assert export([str(module), str(tmp_path / "m"), "--bridge-views", "3", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    space = manifest_of(bridged / "1")["vector_space"]
    assert line.startswith(f"featurewire export: the bridge to {space} ")
    assert not list((tmp_path / "m").glob("*"))


def manifest_of(version: Path) -> dict:
    return json.loads((version / "assets.extra" / "featurewire.json").read_text())


def test_the_manifest_lists_the_native_space_and_the_bridged_one(bridged, capsys):
    old, new = manifest_of(bridged / "1"), manifest_of(bridged / "2")
    native, bridge = new["vector_spaces"]
    assert "vector_spaces" not in old
    assert (native["vector_space"], native["signature"]) == (
        new["vector_space"],
        "serving_default",
    )
    assert bridge["vector_space"] == old["vector_space"]
    assert bridge["signature"] == f"bridge_{old['vector_space']}"
    assert 0 < bridge["retention"]["recall_at_10"] <= 1.1
    assert inspect([str(bridged / "2")]) == 0
    assert f"{old['vector_space']}, of " in capsys.readouterr().out


def test_a_bridged_vector_is_nearest_to_the_old_one_of_its_picture(bridged, pictures):
    images = np.array([path.read_bytes() for path in sorted(pictures.iterdir())], dtype=object)
    images[5] = b"no picture"
    (bridge,) = [each for each in manifest_of(bridged / "2")["vector_spaces"] if each["bridged"]]
    with ArtifactSession(bridged / "1") as session:
        old = session.run("serving_default", image_bytes=images)["features"]
    with ArtifactSession(bridged / "2") as session:
        found = session.run(bridge["signature"], image_bytes=images)
    assert found["status"].nonzero()[0].tolist() == [5]
    assert np.isnan(found["features"][5]).all()
    keep = np.arange(len(images)) != 5
    rank = recall(found["features"][keep], np.arange(keep.sum()), old[keep])
    assert rank.at_10 > 0.9


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_the_embedded_server_serves_the_bridge(bridged, photos_jpeg, tmp_path, engine):
    (bridge,) = [each for each in manifest_of(bridged / "2")["vector_spaces"] if each["bridged"]]
    with ArtifactSession(bridged / "2") as session:
        images = np.array(photos_jpeg[:2], dtype=object)
        expected = session.run(bridge["signature"], image_bytes=images)["features"]
    with (
        serving(bridged, f"--engine={engine}", log=tmp_path / "log", model="lite") as server,
        featurewire.Client(server.target, model="lite", signature=bridge["signature"]) as client,
    ):
        client.wait_until_ready(60)
        vectors = client.embed_batch(photos_jpeg[:2]).vectors
    np.testing.assert_allclose(vectors, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--bridge-from", "m/1"], "--bridge-from and --bridge-images must be given together"),
        (["--bridge-views", "2"], "'2' is too few"),
        (["--bridge-min-recall", "0.9"], "is not two shares"),
    ],
)
def test_wrong_options_are_wrong_usage(capsys, options, says):
    with pytest.raises(SystemExit) as stop:
        export(["stand-in", "m", *options])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_a_bridge_to_the_same_space_is_refused_before_any_embedding(
    tmp_path, capsys, tf2_module, tiny_version, pictures
):
    options = ["--bridge-from", str(tiny_version), "--bridge-images", str(pictures)]
    assert export([str(tf2_module), str(tmp_path / "m"), *options]) == 1
    assert "it needs no bridge" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
