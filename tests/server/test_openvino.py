"""The OpenVINO engine agrees with the TensorFlow engine, on versions in the exporter's format."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest

from featurewire.manifest.files import digest_of
from featurewire_server.common.errors import ServingError
from featurewire_server.engines import load as engine_load
from featurewire_server.engines.artifact import ArtifactEngine
from featurewire_server.engines.engine import EngineConfig
from featurewire_server.engines.libraries import import_openvino
from featurewire_server.engines.load import load_engine
from tests.server.split_model import DIMENSION, SIZE, write_split_model

BAD = {0: b"", 2: b"no image", 5: b"\xff\xd8\xff\xe0 cut short"}


@pytest.fixture(scope="module")
def artifact(split_base_path: Path) -> Path:
    return split_base_path / "1"


@pytest.fixture(scope="module")
def tensorflow(artifact):
    engine = load_engine(artifact, EngineConfig(engine="tensorflow"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def openvino(artifact):
    engine = load_engine(artifact, EngineConfig(engine="openvino"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def images(photos: list[Path]) -> np.ndarray:
    """Photos and bad images."""
    rows: list[bytes] = [photo.read_bytes() for photo in photos]
    for at, data in BAD.items():
        rows.insert(at, data)
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def error_of(call, *args) -> ServingError:
    with pytest.raises(ServingError) as caught:
        call(*args)
    return caught.value


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_both_engines_have_the_same_signatures(tensorflow, openvino):
    assert openvino.name == "openvino"
    assert len(tensorflow.signatures) == 4
    assert dict(openvino.signatures) == dict(tensorflow.signatures)


@pytest.mark.parametrize(
    "name",
    [
        "serving_default",
        pytest.param("preprocess", marks=pytest.mark.slow),
        pytest.param("image_feature_vector", marks=pytest.mark.slow),
        "manifest",
    ],
)
def test_every_signature_gives_what_tensorflow_gives(tensorflow, openvino, images, name):
    assert name in tensorflow.signatures
    values = {
        "image_feature_vector": {
            "images": np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)
        },
        "manifest": {"request": images[:2]},
    }.get(name, {"image_bytes": images})
    outputs = sorted(tensorflow.signatures[name].outputs)
    expected = tensorflow.run(name, values, outputs)
    found = openvino.run(name, values, outputs)
    assert found.keys() == expected.keys()
    for alias, array in expected.items():
        assert found[alias].dtype == array.dtype
        if name == "manifest":  # differs between engines
            assert b'"engine": "openvino"' in found[alias][0]
        elif array.dtype == object:
            assert found[alias].tolist() == array.tolist()
        else:
            np.testing.assert_allclose(found[alias], array, rtol=0, atol=1e-4)


def test_bad_images_are_rows_of_nan_with_their_status(openvino, images):
    outputs = openvino.run("serving_default", {"image_bytes": images}, ["features", "status"])
    bad = np.isin(np.arange(len(images)), list(BAD))
    assert np.isnan(outputs["features"][bad]).all()
    assert np.isfinite(outputs["features"][~bad]).all()
    assert outputs["status"][[0, 2, 5]].tolist() == [1, 2, 4]
    assert not outputs["status"][~bad].any()


@pytest.mark.parametrize("shape", [(), (3, 1), (1, 1, 1)])
def test_both_engines_refuse_anything_but_a_list_of_images(tensorflow, openvino, images, shape):
    odd = np.resize(np.array(images, object), shape)
    for engine in (tensorflow, openvino):
        with pytest.raises(ServingError) as caught:
            engine.run("serving_default", {"image_bytes": odd}, ["features", "status"])
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    for engine in (tensorflow, openvino):  # both continue
        assert engine.run("serving_default", {"image_bytes": images}, ["features", "status"])


@pytest.mark.slow
def test_a_fault_of_openvino_is_internal(openvino, images, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of order")

    monkeypatch.setattr(import_openvino().InferRequest, "infer", fail)
    random = np.zeros((1, SIZE, SIZE, 3), np.float32)
    for signature, values, output in (
        ("serving_default", {"image_bytes": images}, "features"),
        ("image_feature_vector", {"images": random}, "default"),
    ):
        with pytest.raises(ServingError, match="out of order") as caught:
            openvino.run(signature, values, [output])
        assert caught.value.code is grpc.StatusCode.INTERNAL


def test_work_without_waiting_callers_is_not_computed(openvino, images, monkeypatch):
    computed: list[int] = []
    request = import_openvino().InferRequest
    infer = request.infer

    def counted(self, inputs, **options):
        computed.append(len(inputs[0]))
        return infer(self, inputs, **options)

    monkeypatch.setattr(request, "infer", counted)
    rows = {"images": np.zeros((37, SIZE, SIZE, 3), np.float32)}
    files = {"image_bytes": images}
    for seconds, signature, values, output, expected in (
        ([0.0], "image_feature_vector", rows, "default", []),
        # The callers leave after the first piece of 16, 16, 4 and 1.
        ([math.inf, 0.0], "image_feature_vector", rows, "default", [16]),
        ([0.0] * len(images), "serving_default", files, "features", []),
        # They leave between decoding and compute.
        ([60.0] * len(images) + [0.0], "serving_default", files, "features", []),
    ):
        answers = iter(seconds)
        error = error_of(openvino.run, signature, values, [output], answers.__next__)
        assert error.code is grpc.StatusCode.CANCELLED
        assert computed == expected
        computed.clear()
    # Other callers are still answered.
    assert openvino.run("serving_default", files, ["features"], lambda: math.inf)
    assert sum(computed) == len(images) - len(BAD)


@pytest.mark.slow
def test_a_bridge_gives_what_tensorflow_gives(images, tmp_path):
    path = write_split_model(tmp_path, bridges={"bridge_old": lambda vectors: vectors[:, ::2] + 1})
    found = {}
    for name in ("tensorflow", "openvino"):
        engine = load_engine(path, EngineConfig(engine=name))
        assert engine.name == name
        outputs = ["features", "status"]
        found[name] = engine.run("bridge_old", {"image_bytes": images}, outputs)
        engine.close()
    assert found["openvino"]["features"].shape == (len(images), DIMENSION // 2)
    for alias, expected in found["tensorflow"].items():
        np.testing.assert_allclose(found["openvino"][alias], expected, rtol=0, atol=2.2e-5)


@pytest.mark.parametrize("outputs", [["status"], ["features"], ["features", "status"]])
def test_only_the_outputs_asked_for_are_given(openvino, images, outputs):
    found = openvino.run("serving_default", {"image_bytes": images[:2]}, outputs)
    assert sorted(found) == outputs


def test_no_rows_are_no_vectors(openvino):
    images = np.empty((0, SIZE, SIZE, 3), np.float32)
    found = openvino.run("image_feature_vector", {"images": images}, ["default"])
    assert found["default"].shape == (0, DIMENSION)


@pytest.mark.parametrize("rows", [1, 7, 37])
def test_any_number_of_rows_is_computed_in_pieces(tensorflow, openvino, rows):
    images = np.random.default_rng(rows).random((rows, SIZE, SIZE, 3), np.float32)
    expected = tensorflow.run("image_feature_vector", {"images": images}, ["default"])["default"]
    found = openvino.run("image_feature_vector", {"images": images}, ["default"])["default"]
    assert found.shape == (rows, DIMENSION)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_bfloat16_points_where_float32_points(artifact, tensorflow, images):
    engine = load_engine(artifact, EngineConfig(engine="openvino", mixed_precision="bfloat16"))
    values = {"image_bytes": images}
    outputs = ["features", "status"]
    low = engine.run("serving_default", values, outputs)["features"]
    full = tensorflow.run("serving_default", values, outputs)["features"]
    engine.close()
    good = np.isfinite(full).all(1)
    assert low.dtype == np.float32
    assert cosines(low[good], full[good]).min() >= 0.999


def test_concurrent_runs_do_not_mix_their_rows(openvino):
    random = np.random.default_rng(0)
    inputs = [random.random((rows, SIZE, SIZE, 3), np.float32) for rows in (1, 4, 16, 5) * 3]
    expected = [openvino.run("image_feature_vector", {"images": x}, ["default"]) for x in inputs]
    found: list[dict] = [{}] * len(inputs)

    def work(at: int) -> None:
        for _ in range(5):
            found[at] = openvino.run("image_feature_vector", {"images": inputs[at]}, ["default"])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["default"], other["default"])


@pytest.mark.parametrize("shape", [(2, SIZE, SIZE), (2, SIZE + 1, SIZE, 3), (2, 0, SIZE, 3), ()])
def test_images_of_another_shape_are_invalid(openvino, shape):
    images = np.zeros(shape, np.float32)
    error = error_of(openvino.run, "image_feature_vector", {"images": images}, ["default"])
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"[N, {SIZE}, {SIZE}, 3]" in error.message


def test_auto_takes_openvino_for_an_exported_version(artifact):
    engine = load_engine(artifact, EngineConfig(engine="auto"))
    assert engine.name == "openvino"
    engine.close()


def change_manifest(path: Path, change) -> None:
    file = path / "assets.extra" / "featurewire.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


REASONS = {
    "no manifest": "it has no manifest",
    "exported before": "exported without its network for OpenVINO (export it again)",
    "broken manifest": "its manifest cannot be read",
    "other settings": "its preprocessing has revision 1",
    "other signatures": "its signatures are not those of its manifest (bridge_old)",
    "changed network": "its file assets.extra/network.pb does not match its digest in the manifest",
    "missing network": "its file assets.extra/network.pb cannot be read (No such file",
    "unreadable network": "OpenVINO cannot read its network",
}


@pytest.fixture(params=REASONS)
def unsuitable(request, split_version: Path) -> tuple[Path, str]:
    path = split_version
    manifest = path / "assets.extra" / "featurewire.json"
    network = path / "assets.extra" / "network.pb"
    if request.param == "no manifest":
        manifest.unlink()
    elif request.param == "exported before":
        change_manifest(path, lambda m: m.pop("networks"))
    elif request.param == "broken manifest":
        manifest.write_text("{")
    elif request.param == "other settings":
        change_manifest(path, lambda m: m["preprocess"].update(algorithm_revision=1))
    elif request.param == "other signatures":
        bridge = {"vector_space": "old", "signature": "bridge_old", "bridged": True}
        change_manifest(path, lambda m: m.update(vector_spaces=[bridge]))
    elif request.param == "changed network":
        network.write_bytes(network.read_bytes() + b"!")
    elif request.param == "missing network":
        network.unlink()
    else:
        network.write_bytes(b"no graph")
        digest = digest_of(network)
        change_manifest(path, lambda m: m["files"].update({"assets.extra/network.pb": digest}))
    return path, REASONS[request.param]


def test_auto_falls_back_to_tensorflow_and_says_why(unsuitable, caplog):
    path, reason = unsuitable
    with caplog.at_level(logging.INFO, logger=engine_load.__name__):
        engine = load_engine(path, EngineConfig(engine="auto"))
    assert engine.name == "tensorflow"
    assert reason in caplog.text
    request = {"request": np.array([b""], object)}
    assert engine.run("manifest", request, ["manifest"])["manifest"].shape == (1,)
    engine.close()


def test_asking_for_openvino_does_not_fall_back(unsuitable):
    path, reason = unsuitable
    error = error_of(load_engine, path, EngineConfig(engine="openvino"))
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert reason in error.message


def test_without_openvino_auto_serves_with_tensorflow(artifact, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.INFO, logger=engine_load.__name__):
        engine = load_engine(artifact, EngineConfig(engine="auto"))
    assert engine.name == "tensorflow"
    assert 'pip install "featurewire-server[openvino]"' in caplog.text
    engine.close()
    assert (
        "openvino is not installed"
        in error_of(load_engine, artifact, EngineConfig(engine="openvino")).message
    )


def test_float16_is_not_for_openvino(artifact):
    config = EngineConfig(engine="openvino", mixed_precision="float16")
    assert "not in float16" in error_of(load_engine, artifact, config).message


@pytest.mark.slow
def test_the_network_agrees_with_tensorflow(stand_in, photos):
    images = np.empty(len(photos) + 1, object)
    images[:] = [*(photo.read_bytes() for photo in photos), b"no image"]
    features = {}
    for name, precision in (("tensorflow", ""), ("openvino", ""), ("openvino", "bfloat16")):
        config = EngineConfig(engine=name, mixed_precision=precision)
        engine = load_engine(stand_in.base_path / "1", config)
        outputs = engine.run("serving_default", {"image_bytes": images}, ["features"])
        features[name, precision] = outputs["features"]
        engine.close()
    expected = features["tensorflow", ""]
    assert np.isnan(expected[-1]).all()
    difference = np.abs(features["openvino", ""][:-1] - expected[:-1]).max()
    assert difference <= 1e-4
    assert cosines(features["openvino", "bfloat16"][:-1], expected[:-1]).min() >= 0.999


def test_many_rows_run_part_by_part_and_give_the_same(tensorflow, images, monkeypatch):
    many = np.concatenate([images] * (100 // len(images)))
    one = tensorflow.run("serving_default", {"image_bytes": images}, ["features", "status"])
    rows = []
    inner = tensorflow.run

    def run(signature_name, inputs, outputs, _patience):
        rows.append(len(inputs["image_bytes"]))
        return inner(signature_name, inputs, outputs)

    monkeypatch.setattr(tensorflow, "run", run)
    in_parts = ArtifactEngine(tensorflow)
    all_ = in_parts.run("serving_default", {"image_bytes": many}, ["features", "status"])
    assert len(rows) > 1
    assert sum(rows) == len(many)
    for name, rows in one.items():
        np.testing.assert_allclose(
            all_[name], np.concatenate([rows] * (len(many) // len(images))), atol=1e-5
        )
