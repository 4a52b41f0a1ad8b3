"""The engine with the 8-bit network of a version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import grpc
import numpy as np
import pytest

from featurewire_server.common.errors import ServingError
from featurewire_server.engines import exported
from featurewire_server.engines.engine import EngineConfig
from featurewire_server.engines.libraries import import_openvino
from featurewire_server.engines.load import load_engine
from featurewire_server.flags import parse
from tests.server.split_model import SIZE, small_network, write_split_model
from tests.server.test_openvino import change_manifest

INT8 = EngineConfig(engine="openvino", int8=True)
NETWORK = "assets.extra/int8.xml"


@pytest.fixture
def artifact(split_version: Path, tmp_path: Path) -> Path:
    """A version with a different network as the 8-bit one, to show which network runs."""
    path = split_version
    other = small_network(seed=1)
    frozen = tmp_path / "network.pb"
    graph = other.graph_def
    frozen.write_bytes(graph.SerializeToString())
    ov = import_openvino()
    ov.save_model(ov.Core().read_model(frozen), path / NETWORK, compress_to_fp16=False)
    files = [(path / NETWORK).with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")]
    about = {"network": NETWORK, "digest": hashlib.sha256(b"".join(files)).hexdigest()}
    change_manifest(path, lambda manifest: manifest.update(int8=about))
    return path


def refusal(path: Path, config: EngineConfig = INT8) -> str:
    with pytest.raises(ServingError) as caught:
        load_engine(path, config)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    return caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True])
def test_the_quantised_network_runs_and_the_manifest_says_so(artifact, tmp_path, beside):
    engine = load_engine(artifact, INT8, beside=beside)
    other = load_engine(
        write_split_model(tmp_path / "other", seed=1), EngineConfig(engine="openvino")
    )
    images = {"images": np.random.default_rng(0).random((5, SIZE, SIZE, 3), np.float32)}
    np.testing.assert_allclose(
        engine.run("image_feature_vector", images, ["default"])["default"],
        other.run("image_feature_vector", images, ["default"])["default"],
        atol=1e-4,
    )
    request = {"request": np.array([b"", b""], object)}
    texts = engine.run("manifest", request, ["manifest"])["manifest"]
    served = [json.loads(text)["served"] for text in texts]
    assert served == [{"engine": "openvino", "precision": "int8"}] * 2
    assert engine.precision == "int8"
    engine.close()
    other.close()


def test_it_never_runs_unasked(artifact):
    engine = load_engine(artifact, EngineConfig(engine="auto"))
    assert engine.precision == "float32"
    engine.close()


@pytest.mark.parametrize("engine", ["openvino", "auto"])
def test_a_version_without_one_is_not_served_in_float_instead(split_base_path, engine):
    config = EngineConfig(engine=engine, int8=True)
    assert "export it with --int8" in refusal(split_base_path / "1", config)


def test_a_changed_network_is_refused(artifact):
    file = artifact / NETWORK
    file.write_text(file.read_text() + " ")
    assert "does not match its digest in the manifest" in refusal(artifact)


def test_a_missing_network_is_refused(artifact):
    (artifact / NETWORK).unlink()
    assert "cannot be read" in refusal(artifact)


def test_one_that_needs_vnni_is_refused_without(artifact, monkeypatch):
    change_manifest(artifact, lambda manifest: manifest["int8"].update(any_processor=False))
    monkeypatch.setattr(exported, "has_vnni", lambda: False)
    assert "VNNI" in refusal(artifact)
    monkeypatch.setattr(exported, "has_vnni", lambda: True)
    load_engine(artifact, INT8).close()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--engine_precision=int8", "--mixed_precision=bfloat16"], "contradict"),
        (["--engine_precision=int8", "--engine=tensorflow"], "needs OpenVINO"),
        (["--engine_precision=float16"], "invalid choice"),
    ],
)
def test_flags_that_contradict_each_other_are_wrong_usage(given, text, capsys):
    with pytest.raises(SystemExit) as caught:
        parse([*given, "--model_base_path=/m"])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err
