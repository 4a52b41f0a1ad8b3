"""A quantised network beside the float one: measured, refused, published."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featurewire_exporter import photos
from featurewire_exporter.artifact import ArtifactSession
from featurewire_exporter.bridge.maps import unit
from featurewire_exporter.commands import export, inspect
from featurewire_exporter.int8 import make, quantise
from featurewire_exporter.int8.config import Int8Config
from featurewire_exporter.int8.gate import measure

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

    runner = quantise.Runner(ov.Core().read_model(version / make.NETWORK))
    encoded = np.array([photos.jpeg(60, 80, seed=seed) for seed in range(4)], dtype=object)
    with ArtifactSession(version) as session:
        images = session.run("preprocess", image_bytes=encoded)["images"]
        exact = session.run("serving_default", image_bytes=encoded)["features"]
    cosines = (unit(exact) * unit(runner.vectors(images))).sum(axis=1)
    assert cosines.min() > 0.98


def test_nothing_is_published_below_the_gate(tf2_module, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quantise, "SETTINGS", quantise.SETTINGS[:1])
    arguments = [str(tf2_module), str(tmp_path / "m"), "--int8", "--int8-min-agreement", "1,1"]
    assert export(arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no setting for 8 bits passes: the nearest is 'plain' with cosine" in error
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("vnni", "options", "tried"),
    [
        (True, [], ["plain", "ends", "fix"]),
        (True, ["--int8-any-processor"], ["fix"]),
        (False, [], ["plain", "fix"]),
        (False, ["--int8-any-processor"], ["plain", "fix"]),
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
    monkeypatch.setattr(make, "_has_vnni", lambda: vnni)
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
    monkeypatch.setattr(make.importlib.util, "find_spec", lambda name: None)
    assert export([str(tf2_module), str(tmp_path / "m"), "--int8"]) == 1
    assert "pip install 'featurewire-exporter[int8]'" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--calibration-images", "."], ["--int8-any-processor"]])
def test_options_of_int8_are_for_int8(tf2_module, tmp_path, option):
    with pytest.raises(SystemExit) as caught:
        export([str(tf2_module), str(tmp_path / "m"), *option])
    assert caught.value.code == 2
