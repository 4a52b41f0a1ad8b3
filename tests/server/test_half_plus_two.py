"""TensorFlow Serving's own test of its server, for a real process with the same models.

The models are half plus two in TensorFlow 1 and 2, and models of `tf.saved_model.save` and Keras.
TensorFlow Lite, the profiler and TensorFlow Text are omitted because this server lacks them.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from featurewire_server._tfs.classification_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
)
from featurewire_server._tfs.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse
from featurewire_server._tfs.input_pb2 import Input
from featurewire_server._tfs.regression_pb2 import RegressionRequest, RegressionResponse
from tests.server.support import PREDICTION, Stub, code_and_text, predict_request, spec, stub_for
from tests.support.process import ServerProcess, free_port, wait_for_port
from tests.support.waiting import wait_until

VERSION = 123
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
FEATURES = {"x": tf.io.FixedLenFeature([1], tf.float32)}


def write_tf1(path: Path, summand: float = 2) -> None:
    """x / 2 + `summand` for floats and examples, in a TensorFlow 1 graph."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="serialized")
        x = v1.placeholder_with_default(
            tf.io.parse_example(serialized, FEATURES)["x"], [None, 1], name="x"
        )
        y = tf.identity(x / 2 + summand, name="y")
        saved = v1.saved_model
        builder = saved.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": saved.predict_signature_def({"x": x}, {"y": y}),
                "regress_x_to_y": saved.regression_signature_def(serialized, y),
                "classify_x_to_y": saved.classification_signature_def(serialized, None, y),
            },
        )
        builder.save()


class HalfPlusTwo(tf.Module):
    """The same in TensorFlow 2, where each signature is a function with its own input."""

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x / 2 + 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": tf.io.parse_example(inputs, FEATURES)["x"] / 2 + 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": tf.io.parse_example(inputs, FEATURES)["x"] / 2 + 2}


def write_tf2(path: Path) -> None:
    module = HalfPlusTwo()
    signatures = {
        "serving_default": module.predict,
        "regress_x_to_y": module.regress,
        "classify_x_to_y": module.classify,
    }
    tf.saved_model.save(module, str(path), signatures=signatures)


def write_variables(path: Path) -> None:
    """3 * 2 * x with two variables, and another signature that returns 2."""
    root = tf.Module()
    root.v1, root.v2 = tf.Variable(3.0), tf.Variable(2.0)
    one = [tf.TensorSpec(None, tf.float32)]
    signatures = {
        "serving_default": tf.function(lambda x: {"y": root.v1 * root.v2 * x}, one),
        "custom_signature_key": tf.function(lambda x: {"y": 0 * x + 2}, one),
    }
    tf.saved_model.save(root, str(path), signatures=signatures)


def write_keras(path: Path, strategy: tf.distribute.Strategy | None = None) -> None:
    """Half plus two as Keras layers, trained on one device or with `strategy`."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        inputs = tf.keras.layers.Input(dtype="float32", shape=(1,), name="x")
        dense = tf.keras.layers.Dense(1, name="y")
        model = tf.keras.Sequential([inputs, dense])
    dense.set_weights([np.full((1, 1), 0.5, np.float32), np.full(1, 2, np.float32)])
    model.export(str(path), verbose=False)


WRITERS: dict[str, Callable[[Path], None]] = {
    "tf1": write_tf1,
    "tf2": write_tf2,
    "three": lambda path: write_tf1(path, 3),
    "variables": write_variables,
    "keras": write_keras,
    "distributed": lambda path: write_keras(path, tf.distribute.OneDeviceStrategy("/cpu:0")),
}


@dataclass
class Half:
    """A server with all models, a REST port, a UNIX socket and a config file."""

    stub: Stub
    rest_port: int
    socket: str
    config: Path
    folder: Path

    def serve(self, *names: str) -> None:
        """Write a config file with the models `names`."""
        self.config.write_text(config_text(self.folder, names))

    def rest(self, path: str, body: object = None) -> str:
        url = f"http://127.0.0.1:{self.rest_port}{path}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=20) as answer:
            text: str = answer.read().decode()
        return text

    def models(self) -> set[str]:
        """The models whose status is known."""
        return {name for name in WRITERS if self._serves(name)}

    def _serves(self, name: str) -> bool:
        try:
            return self.stub.states(name) == {VERSION: "AVAILABLE"}
        except Exception:
            return False


def config_text(folder: Path, names: Iterator[str] | tuple[str, ...]) -> str:
    inner = " ".join(
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" }}'
        for name in names
    )
    return f"model_config_list {{ {inner} }}"


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Half]:
    folder = tmp_path_factory.mktemp("half")
    for name, write in WRITERS.items():
        write(folder / name / f"{VERSION:08d}")
    config, socket, rest_port = folder / "models.config", folder / "socket", free_port()
    config.write_text(config_text(folder, tuple(WRITERS)))
    monitoring = folder / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    server = ServerProcess(
        f"--model_config_file={config}",
        "--model_config_file_poll_wait_seconds=1",
        f"--monitoring_config_file={monitoring}",
        f"--rest_api_port={rest_port}",
        f"--grpc_socket_path={socket}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=60000,grpc.lb_policy_name=grpclb",
        "--engine=tensorflow",
        log=folder / "server.log",
    )
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: server.process and server.stop())
        server.start()
        wait_for_port(rest_port, server.process, 60)
        stub = stack.enter_context(stub_for(server.target))
        yield Half(stub, rest_port, f"unix:{socket}", config, folder)


def y(stub: Stub, name: str, x: object = 2.0, signature: str = "") -> list[float]:
    """The output for the float32 `x`; checks the version and signature in the answer."""
    request = predict_request(spec(name, signature=signature), x=np.array(x, np.float32))
    answer = stub.predict(request)
    assert answer.model_spec.version.value == VERSION
    assert answer.model_spec.signature_name == (signature or "serving_default")
    (output,) = answer.outputs.values()  # Keras calls it output_0
    return [*output.float_val]


def example(x: float = 2.0) -> Input:
    made = Input()
    made.example_list.examples.add().features.feature["x"].float_list.value.append(x)
    return made


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("tf1", [2.0], [3]),
        ("tf2", [2.0, 4.0], [3, 4]),
        ("three", [2.0], [4]),
        ("variables", [2.0], [12]),
        ("keras", [[2.0]], [3]),
        ("distributed", [[2.0]], [3]),
    ],
)
def test_predict_runs_models_of_every_origin(half: Half, name: str, x, expected) -> None:
    assert y(half.stub, name, x) == expected


def test_predict_takes_another_signature_and_an_output_filter(half: Half) -> None:
    assert y(half.stub, "variables", signature="custom_signature_key") == [2]
    request = predict_request(spec("tf1"), x=np.array([2], np.float32))
    request.output_filter.append("y")
    assert list(half.stub.predict(request).outputs["y"].float_val) == [3]


def test_predict_answers_on_a_unix_socket(half: Half) -> None:
    with stub_for(half.socket) as stub:
        assert y(stub, "tf1", [2.0]) == [3]


@pytest.mark.parametrize("name", ["tf1", "tf2"])
def test_classify_regress_and_both_in_one_request(half: Half, name: str) -> None:
    classify, regress = "classify_x_to_y", "regress_x_to_y"
    chosen = spec(name, signature=classify)
    one_request = ClassificationRequest(model_spec=chosen, input=example())
    classified = half.stub.call(PREDICTION + "Classify", one_request, ClassificationResponse)
    assert [one.score for one in classified.result.classifications[0].classes] == [3]
    chosen = spec(name, signature=regress)
    other = RegressionRequest(model_spec=chosen, input=example())
    regressed = half.stub.call(PREDICTION + "Regress", other, RegressionResponse)
    assert [one.value for one in regressed.result.regressions] == [3]
    both = MultiInferenceRequest(input=example())
    both.tasks.add(model_spec=spec(name, signature=regress), method_name=REGRESS)
    both.tasks.add(model_spec=spec(name, signature=classify), method_name=CLASSIFY)
    answer = half.stub.call(PREDICTION + "MultiInference", both, MultiInferenceResponse)
    first, second = answer.results
    assert first.regression_result == regressed.result
    assert second.classification_result == classified.result
    specs = [classified.model_spec, regressed.model_spec, second.model_spec, first.model_spec]
    assert [(found.name, found.version.value, found.signature_name) for found in specs] == [
        (name, VERSION, classify),
        (name, VERSION, regress),
    ] * 2


def test_status_over_grpc_and_rest(half: Half) -> None:
    (status,) = half.stub.status(spec("tf1")).model_version_status
    assert (status.version, status.status.error_code) == (VERSION, 0)
    assert json.loads(half.rest("/v1/models/tf1")) == {
        "model_version_status": [
            {
                "version": str(VERSION),
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }


def test_metadata_over_grpc_and_rest(half: Half) -> None:
    answer = half.stub.metadata(spec("tf1"), "signature_def")
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("tf1", VERSION)
    assert [*answer.metadata] == ["signature_def"]
    shown = json.loads(half.rest("/v1/models/tf1/metadata"))
    assert shown["model_spec"] == {"name": "tf1", "signature_name": "", "version": str(VERSION)}
    signatures = shown["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {"serving_default", "regress_x_to_y", "classify_x_to_y"}
    shape = {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    assert signatures["serving_default"] == {
        "inputs": {"x": {"name": "x:0", "dtype": "DT_FLOAT", "tensor_shape": shape}},
        "outputs": {"y": {"name": "y:0", "dtype": "DT_FLOAT", "tensor_shape": shape}},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


def test_metadata_of_tensorflow_2_lists_its_init_op(half: Half) -> None:
    shown = json.loads(half.rest("/v1/models/tf2/metadata"))
    init = shown["metadata"]["signature_def"]["signature_def"]["__saved_model_init_op"]
    assert init["inputs"] == {}
    assert init["outputs"]["__saved_model_init_op"]["dtype"] == "DT_INVALID"
    assert init["outputs"]["__saved_model_init_op"]["tensor_shape"]["unknown_rank"]


@pytest.mark.parametrize(
    ("verb", "body", "answer"),
    [
        ("predict", {"instances": [2.0, 3.0, 4.0]}, {"predictions": [3.0, 3.5, 4.0]}),
        ("predict", {"inputs": [2.0, 3.0, 4.0]}, {"outputs": [3.0, 3.5, 4.0]}),
        (
            "classify",
            {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]},
            {"results": [[["", 3.0]]]},
        ),
        (
            "regress",
            {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]},
            {"results": [3.0]},
        ),
    ],
)
@pytest.mark.parametrize("name", ["tf1", "tf2"])
def test_predict_classify_and_regress_over_rest(half: Half, name, verb, body, answer) -> None:
    assert json.loads(half.rest(f"/v1/models/{name}:{verb}", body)) == answer


def test_the_metrics_page_is_at_its_default_path(half: Half) -> None:
    assert "# TYPE" in half.rest("/monitoring/prometheus/metrics")


def test_a_config_file_is_followed_while_it_is_polled(half: Half) -> None:
    half.serve("three")
    wait_until(lambda: half.models() == {"three"})
    assert y(half.stub, "three", [2.0]) == [4]
    half.serve(*WRITERS)
    wait_until(lambda: half.models() == {*WRITERS})
    assert y(half.stub, "tf1", [2.0]) == [3]


def test_a_config_file_is_read_once_unless_it_is_polled(half: Half, tmp_path: Path) -> None:
    for name in ("three", "tf1"):
        shutil.copytree(half.folder / name, tmp_path / name)
    config = tmp_path / "models.config"
    config.write_text(config_text(tmp_path, ("three",)))
    flags = (f"--model_config_file={config}", "--engine=tensorflow")
    server = ServerProcess(*flags, log=tmp_path / "server.log")
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: server.process and server.stop())
        server.start()
        stub = stack.enter_context(stub_for(server.target))
        wait_until(lambda: stub.states("three") == {VERSION: "AVAILABLE"})
        config.write_text(config_text(tmp_path, ("three", "tf1")))
        # The new version proves that the server has polled its files since.
        write_tf1(tmp_path / "three.new", 3)
        (tmp_path / "three.new").rename(tmp_path / "three" / str(VERSION + 1))
        wait_until(lambda: stub.states("three").get(VERSION + 1) == "AVAILABLE")
        code, text = code_and_text(lambda: stub.states("tf1"))
        assert code is grpc.StatusCode.NOT_FOUND
        assert text == "Could not find any versions of model tf1"
