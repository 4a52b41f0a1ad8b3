"""A quantised network beside the float one: measured, refused, published."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from featurewire_exporter import photos
from featurewire_exporter.artifact import ArtifactSession
from featurewire_exporter.bridge.maps import unit
from featurewire_exporter.commands import export, inspect
from featurewire_exporter.int8 import make, openvino_network, quantise
from featurewire_exporter.int8.config import Int8Config
from featurewire_exporter.int8.gate import measure
from featurewire_exporter.int8.pictures import gather
from tests.support.pictures import on_white, stamps, write_tiles

LOW = "0.9,0.5"
"""What a network of six floats reaches."""
LENIENT = Int8Config.__init__.__kwdefaults__ | {"max_recall_loss": 0.5}


@pytest.fixture(scope="module")
def version(tf2_module, tmp_path_factory):
    base = tmp_path_factory.mktemp("int8") / "model"
    with pytest.MonkeyPatch.context() as patch:
        # A crop finds its picture by luck among vectors of six floats.
        patch.setattr(Int8Config.__init__, "__kwdefaults__", LENIENT)
        assert export([str(tf2_module), str(base), "--int8", "--int8-min-agreement", LOW]) == 0
    return base / "1"


def vectors(noise: float) -> np.ndarray:
    """float32 [30, 3, 16]: pictures with two crops near each."""
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


def test_the_version_holds_the_network_and_says_what_was_measured(version, capsys):
    about = json.loads((version / "assets.extra" / "featurewire.json").read_text())
    int8 = about["int8"]
    network = version / int8["network"]
    assert make.digest(network) == int8["digest"]
    assert {int8["network"], "assets.extra/int8.bin"} <= about["files"].keys()
    assert int8["gate"]["cosine"] >= 0.9
    assert int8["calibration"]["images"] > 0
    assert inspect([str(version)]) == 0
    assert "int8" in capsys.readouterr().out


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


def test_a_folder_without_pictures_is_refused(tf2_module, tmp_path, capsys):
    base = tmp_path / "m"
    given = [str(tf2_module), str(base), "--int8", "--calibration-images", str(tmp_path)]
    assert export(given) == 1
    assert "holds 0 pictures" in capsys.readouterr().err


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

    judged = gather(pictures, version).judged
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
    """The ten nearest of each picture but itself."""
    return [[other for other in row if other != own][:10] for own, row in enumerate(near)]
