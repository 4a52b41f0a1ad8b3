"""8-bit networks: measured, refused, and published next to the float network."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import tensorflow as tf

from featurewire.manifest.network import network_digest
from featurewire_exporter import photos
from featurewire_exporter.commands import export, inspect
from featurewire_exporter.errors import ExportError
from featurewire_exporter.int8 import make, openvino_network, quantise
from featurewire_exporter.int8.config import Int8Config
from featurewire_exporter.int8.gate import measure
from featurewire_exporter.int8.pictures import Found, find, preprocess_pictures
from featurewire_exporter.quality.recall import unit
from featurewire_exporter.version.artifact import ArtifactSession
from tests.support.pictures import on_white, stamps, write_tiles

LOW = "0.9,0.5"
"""Limits that a network with six floats reaches."""
LUCK = {"max_recall_loss": 0.5, "min_float32_recall_at_1": 0.0}
"""With vectors of six floats, a crop finds its picture only by chance."""
LENIENT = Int8Config.__init__.__kwdefaults__ | LUCK


@pytest.fixture
def lenient(monkeypatch):
    monkeypatch.setattr(Int8Config.__init__, "__kwdefaults__", LENIENT)


@pytest.fixture(scope="module")
def version(tf2_module, tmp_path_factory):
    base = tmp_path_factory.mktemp("int8") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Int8Config.__init__, "__kwdefaults__", LENIENT)
        assert export([str(tf2_module), str(base), "--int8", "--int8-min-agreement", LOW]) == 0
    return base / "1"


def vectors(noise: float) -> np.ndarray:
    """float32 [30, 3, 16]: pictures, each with two similar crops."""
    random = np.random.default_rng(0)
    found = random.normal(size=(30, 1, 16)) + 0.1 * random.normal(size=(30, 3, 16))
    return (found + noise * random.normal(size=found.shape)).astype(np.float32)


def test_the_gate_lets_the_same_vectors_through():
    measured = measure(vectors(0), vectors(0))
    assert measured.queries == 60
    assert measured.recall_at_1 == measured.float32_recall_at_1 == 1.0
    assert measured.overlap_at_10 == 1.0
    assert measured.passes(Int8Config())


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_gate_holds_what_search_would_notice(noise):
    measured = measure(vectors(0), vectors(noise))
    assert measured.overlap_at_10 < 0.97
    assert not measured.passes(Int8Config())


def test_recall_alone_can_fail_it():
    config = Int8Config(min_cosine=0.1, min_overlap_at_10=0.1)
    assert measure(vectors(0), vectors(0.3)).passes(config)
    assert not measure(vectors(0), vectors(2.0)).passes(config)


@pytest.mark.slow
def test_the_version_holds_the_network_and_says_what_was_measured(version, capsys):
    about = json.loads((version / "assets.extra" / "featurewire.json").read_text())
    int8 = about["int8"]
    network = version / int8["network"]
    assert network_digest(network) == int8["digest"]
    assert {int8["network"], "assets.extra/int8.bin"} <= about["files"].keys()
    assert int8["gate"]["cosine"] >= 0.9
    assert int8["calibration"]["images"] > 0
    assert inspect([str(version)]) == 0
    assert "int8" in capsys.readouterr().out


@pytest.mark.slow
def test_the_network_gives_vectors_of_the_same_space(version):
    import openvino as ov

    network = openvino_network.compiled(ov.Core().read_model(version / make.NETWORK))
    encoded = np.array([photos.jpeg(60, 80, seed=seed) for seed in range(4)], dtype=object)
    with ArtifactSession(version) as session:
        images = session.run("preprocess", image_bytes=encoded)["images"]
        exact = session.run("serving_default", image_bytes=encoded)["features"]
    cosines = (unit(exact) * unit(network(images)[0])).sum(axis=1)
    assert cosines.min() > 0.98


@pytest.mark.slow
@pytest.mark.usefixtures("lenient")
def test_nothing_is_published_below_the_gate(tf2_module, tmp_path, capsys, monkeypatch):
    fastest = [each for each in quantise.SETTINGS if each.overflow_fix][:1]
    monkeypatch.setattr(quantise, "SETTINGS", fastest)
    arguments = [str(tf2_module), str(tmp_path / "m"), "--int8", "--int8-min-agreement", "1,1"]
    assert export(arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no setting for 8 bits passes: the nearest is 'overflow fix' with cosine" in error
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vnni", "options", "tried"),
    [
        (True, [], ["plain", "ends", "fix"]),
        (True, ["--int8-any-processor"], ["fix"]),
        (False, [], ["fix"]),
        (False, ["--int8-any-processor"], ["fix"]),
    ],
)
@pytest.mark.usefixtures("lenient")
def test_settings_that_would_saturate_are_passed_over(
    tf2_module, tmp_path, capsys, monkeypatch, vnni, options, tried
):
    settings = (
        quantise.Setting(name="plain"),
        quantise.Setting(name="ends", float_layers=2),
        quantise.Setting(name="fix", overflow_fix=True),
    )
    monkeypatch.setattr(make, "has_vnni", lambda: vnni)
    monkeypatch.setattr(quantise, "SETTINGS", settings)
    arguments = [str(tf2_module), str(tmp_path / "m"), "--int8", "--int8-min-agreement", "1,1"]
    assert export([*arguments, *options]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [s.split("8 bits: ")[1] for s in said if "Quantising to 8 bits: " in s] == tried


def _refusal_of(folder, module, base, capsys) -> str:
    given = [str(module), str(base / "m"), "--int8", "--calibration-images", str(folder)]
    assert export(given) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert not (base / "m").exists()
    return said.out + said.err


@pytest.mark.parametrize(
    ("pictures", "text"),
    [
        ([], "holds 0 pictures, but at least 5 are needed"),
        ([photos.jpeg(9, 9, seed=seed) for seed in range(4)], "holds 4 pictures"),
        ([b"no picture %d" % number for number in range(20)], "too few of 20 pictures"),
        (
            [b"no picture", *(photos.jpeg(9, 9, seed=seed) for seed in range(4))],
            "too few of 5 pictures of pictures decode",
        ),
    ],
    ids=["none", "few", "undecodable", "few decodable"],
)
def test_a_folder_of_too_few_pictures_is_refused_before_any_work(
    tf2_module, tmp_path, capsys, pictures, text
):
    (folder := tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pictures):
        (folder / f"{number}.jpg").write_bytes(picture)

    said = _refusal_of(folder, tf2_module, tmp_path, capsys)
    assert text in said
    assert "Loading the module" not in said


def test_a_calibration_folder_that_is_none_is_refused_before_any_work(tf2_module, tmp_path, capsys):
    said = _refusal_of(tmp_path / "nowhere", tf2_module, tmp_path, capsys)
    assert "nowhere is not a folder; give --calibration-images one with pictures" in said
    assert "Loading the module" not in said


def test_pictures_that_all_have_one_vector_measure_nothing():
    same = np.ones([30, 3, 16], np.float32)
    with pytest.raises(ExportError, match="in float32, 0% of their crops find them first"):
        measure(same, same).require_telling(Int8Config())
    measure(vectors(0), vectors(1.0)).require_telling(Int8Config())


@pytest.mark.slow
def test_pictures_that_float32_cannot_tell_apart_are_refused(tf2_module, tmp_path, capsys):
    (folder := tmp_path / "pictures").mkdir()
    for grey in range(6):
        plain = np.full([40, 60, 3], 40 * grey, np.uint8)
        (folder / f"{grey}.png").write_bytes(tf.io.encode_png(plain).numpy())

    said = _refusal_of(folder, tf2_module, tmp_path, capsys)
    assert "8 bits cannot be tested with these pictures: in float32, 0% of their crops" in said
    assert "Quantising" not in said


@pytest.mark.slow
def test_an_index_that_holds_only_the_ten_nearest_is_no_test(tiny_version):
    found = Found(source="some pictures", encoded=[photos.jpeg(30, 40, seed=0)] * 2)
    with pytest.raises(ExportError, match="too few of some pictures decode"):
        preprocess_pictures(found, tiny_version)


def test_what_is_missing_is_said_before_any_work(tf2_module, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert export([str(tf2_module), str(tmp_path / "m"), "--int8"]) == 1
    assert "pip install 'featurewire-exporter[int8]'" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--calibration-images", "."], ["--int8-any-processor"]])
def test_options_of_int8_are_for_int8(tf2_module, tmp_path, option):
    with pytest.raises(SystemExit) as caught:
        export([str(tf2_module), str(tmp_path / "m"), *option])
    assert caught.value.code == 2


@pytest.fixture(scope="module")
def pictures(photos, tmp_path_factory):
    """A folder of 160 pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    if not (found := stamps()[:: len(stamps()) // 159 or 1]):
        return write_tiles(photos, folder, 160)
    for number, path in enumerate(found):
        (folder / f"{number}.jpg").write_bytes(on_white(path))
    return folder


@pytest.mark.slow
def test_a_learned_network_is_as_good_in_8_bits_as_its_manifest_says(
    learned_module, pictures, tmp_path, capsys
):
    import openvino as ov

    given = ["--int8", "--calibration-images", str(pictures), "--int8-min-agreement", "0.98,0.93"]
    assert export([str(learned_module), str(tmp_path / "m"), *given]) == 0
    version = tmp_path / "m" / "1"
    int8 = json.loads((version / "assets.extra" / "featurewire.json").read_text())["int8"]
    gate = int8["gate"]
    assert gate["cosine"] >= 0.98
    assert gate["overlap_at_10"] >= 0.93
    assert gate["recall_at_1"] >= gate["float32_recall_at_1"] - 0.005
    assert int8["setting"] in capsys.readouterr().out

    judged = preprocess_pictures(find(pictures), version).judged
    assert (gate["pictures"], gate["queries"]) == (len(judged), 2 * len(judged))
    images = judged.reshape(-1, *judged.shape[2:])
    core = ov.Core()
    exactly = {"INFERENCE_PRECISION_HINT": "f32"}
    network = core.compile_model(core.read_model(version / int8["network"]), "CPU", exactly)
    quantised = np.concatenate([network(part)[0].copy() for part in np.split(images, len(judged))])
    with ArtifactSession(version) as session:
        exact = session.run("image_feature_vector", images=images)["default"]
    quantised /= np.linalg.norm(quantised, axis=1, keepdims=True)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    assert gate["cosine"] == pytest.approx(np.median((quantised * exact).sum(axis=1)), abs=1e-3)

    index = exact[::3]
    near, near_8 = (np.argsort(-vectors[::3] @ index.T)[:, :11] for vectors in (exact, quantised))
    common = [len({*a} & {*b}) / 10 for a, b in zip(_others(near), _others(near_8), strict=True)]
    assert gate["overlap_at_10"] == pytest.approx(np.mean(common), abs=0.01)
    for vectors, key in ((exact, "float32_recall_at_1"), (quantised, "recall_at_1")):
        found = [
            np.argmax(index @ vectors[3 * own + crop]) == own
            for own in range(len(index))
            for crop in (1, 2)
        ]
        assert gate[key] == pytest.approx(np.mean(found), abs=0.011)


def _others(near):
    """The ten nearest neighbours of each picture, without itself."""
    return [[other for other in row if other != own][:10] for own, row in enumerate(near)]
