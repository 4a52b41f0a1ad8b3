"""The server process from the outside: start, addresses, files and shutdown."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import featurewire
from featurewire_server.common.errors import ServingError
from featurewire_server.configs import ssl_config
from featurewire_server.flags import parse
from tests.server.split_model import write_split_model
from tests.server.support import (
    JPEG,
    PREDICTION,
    TIMEOUT,
    code_and_text,
    predict_request,
    spec,
    stub_for,
)
from tests.support import warm
from tests.support.models import expected_vector, write_tiny_model
from tests.support.process import ServerProcess, free_port, serving
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

REFLECTED = {
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}


def run(*flags: str) -> subprocess.CompletedProcess:
    """Run a server that ends without a signal."""
    return warm.run(
        ["-m", "featurewire_server", *flags], capture_output=True, text=True, timeout=120
    )


def config_text(base_path: Path, *, name: str = "tiny", more: str = "") -> str:
    return (
        f'model_config_list {{ config {{ name: "{name}" base_path: "{base_path}" '
        f'model_platform: "tensorflow" {more} }} }}'
    )


def socket_of(server: ServerProcess) -> str:
    return f"unix:{server.log.with_name('socket')}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def everything(tiny_model: Path, tmp_path_factory, authority) -> Iterator[ServerProcess]:
    """A server with every interface: mutual TLS, a UNIX socket, health and reflection."""
    folder = tmp_path_factory.mktemp("everything")
    certificate = authority.issue_cert("localhost")
    key = certificate.private_key_pem.bytes().decode()
    chain = "".join(blob.bytes().decode() for blob in certificate.cert_chain_pems)
    ca = authority.cert_pem.bytes().decode()
    ssl = folder / "ssl.config"
    ssl.write_text(
        f"server_key: {quoted(key)}\nserver_cert: {quoted(chain)}\n"
        f"custom_ca: {quoted(ca)}\nclient_verify: true\n"
    )
    with serving(
        tiny_model,
        f"--ssl_config_file={ssl}",
        f"--grpc_socket_path={folder / 'socket'}",
        "--enable_grpc_healthcheck_service",
        "--grpc_channel_arguments=grpc.max_receive_message_length=100000,grpc.max_concurrent_streams=9",
        "--enable_serialization_as_tensor_content=true",
        "--num_load_threads",
        "2",
        log=folder / "log",
    ) as server:
        yield server


def quoted(text: str) -> str:
    return '"' + text.replace("\n", "\\n") + '"'


def client_credentials(authority: trustme.CA, *, with_certificate: bool) -> dict[str, bytes]:
    certificate = authority.issue_cert("client@example.org")
    pair = {
        "private_key": certificate.private_key_pem.bytes(),
        "certificate_chain": certificate.cert_chain_pems[0].bytes(),
    }
    root = {"root_certificates": authority.cert_pem.bytes()}
    return root | (pair if with_certificate else {})


def test_mutual_tls_lets_in_who_has_a_certificate(everything, authority) -> None:
    target = f"localhost:{everything.port}"
    with stub_for(target, client_credentials(authority, with_certificate=True)) as stub:
        assert stub.states() == {2: "AVAILABLE"}
    with stub_for(target, client_credentials(authority, with_certificate=False)) as stub:
        assert code_and_text(stub.states)[0] is grpc.StatusCode.UNAVAILABLE
    with stub_for(everything.target) as stub:
        assert code_and_text(stub.states)[0] is grpc.StatusCode.UNAVAILABLE


def test_a_unix_socket_answers(everything) -> None:
    with stub_for(socket_of(everything)) as stub:
        response = stub.predict(predict_request(image_bytes=[JPEG]))
        assert response.outputs["features"].tensor_content
        assert (
            response.outputs["features"].tensor_content
            == expected_vector(JPEG, version=2).tobytes()
        )


def test_channel_arguments_reach_the_server(everything) -> None:
    with stub_for(socket_of(everything)) as stub:
        large = predict_request(image_bytes=[JPEG + bytes(200_000)])
        assert code_and_text(lambda: stub.predict(large))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert stub.states() == {2: "AVAILABLE"}


def test_health_is_reported(everything) -> None:
    with stub_for(socket_of(everything)) as stub:
        for service in (
            "",
            "tensorflow.serving.PredictionService",
            "PredictionService",
            "ModelService",
        ):
            request = HealthCheckRequest(service=service)
            answer = stub.call("/grpc.health.v1.Health/Check", request, HealthCheckResponse)
            assert answer.status == HealthCheckResponse.SERVING


def test_reflection_describes_every_service(everything) -> None:
    with grpc.insecure_channel(socket_of(everything)) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {*database.get_services()} == REFLECTED
        for service in REFLECTED:
            assert database.FindFileContainingSymbol(service).service
        file = database.FindFileByName("tensorflow_serving/apis/predict.proto")
        assert [message.name for message in file.message_type] == [
            "PredictRequest",
            "PredictResponse",
        ]


def test_a_socket_is_taken_over_and_outlives_its_first_server(
    tiny_model: Path, tmp_path: Path
) -> None:
    socket_path = tmp_path / "socket"
    flags = (f"--grpc_socket_path={socket_path}",)
    with serving(tiny_model, *flags, log=tmp_path / "first") as first:
        with stub_for(f"unix:{socket_path}") as old, contextlib.ExitStack() as stack:
            assert old.states() == {2: "AVAILABLE"}
            stack.enter_context(serving(tiny_model, *flags, log=tmp_path / "second"))
            assert old.states() == {2: "AVAILABLE"}  # its connection still goes to the first server
            assert first.stop() == 0
            with stub_for(f"unix:{socket_path}") as new:
                assert new.states() == {2: "AVAILABLE"}
        assert not socket_path.exists()  # the second one has also ended


def test_calls_that_race_with_the_end_of_the_server_are_unavailable(
    tiny_model: Path, tmp_path: Path
) -> None:
    codes: collections.Counter = collections.Counter()
    request = predict_request(image_bytes=[JPEG])

    def call() -> None:
        with stub_for(server.target) as stub:
            while codes[grpc.StatusCode.UNAVAILABLE] < 50:
                codes[stub.start(PREDICTION + "Predict", request, None).code()] += 1

    with serving(tiny_model, log=tmp_path / "log") as server:
        callers = [threading.Thread(target=call) for _ in range(8)]
        for caller in callers:
            caller.start()
        wait_until(lambda: codes[grpc.StatusCode.OK] > 50)
        assert server.stop() == 0
        for caller in callers:
            caller.join(TIMEOUT)
    assert codes.keys() == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


def test_the_image_has_tensorflow_servings_command() -> None:
    root = Path(__file__).parents[2]
    command = "server/tensorflow_model_server"
    assert f"COPY {command} /usr/bin/tensorflow_model_server" in (root / "Dockerfile").read_text()
    assert os.access(root / command, os.X_OK)
    ended = subprocess.run(
        [root / "server" / "tensorflow_model_server", "--model_base_path=/m", "--nonsense"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert ended.returncode == 2
    assert "unrecognized arguments: --nonsense" in ended.stderr


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_a_taken_port_is_named_in_one_line(tiny_model: Path, flag: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        others = [] if flag == "port" else [f"--port={free_port()}"]
        ended = run(f"--{flag}={port}", *others, f"--model_base_path={tiny_model}")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"cannot listen on port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--nonsense=1"], "unrecognized arguments: --nonsense=1"),
        (["--grpc_max_thread=1"], "did you mean --grpc_max_threads?"),
        (["--model_base_path=/m", "--port=no"], "argument --port: invalid int value: 'no'"),
        (["--model_base_path=/m", "--enable_batching=perhaps"], "neither true nor false"),
        ([], "one of --model_base_path and --model_config_file must be given"),
        (
            ["--model_base_path=/m", "--use_alts_credentials"],
            "--use_alts_credentials is not supported",
        ),
        (["--model_base_path=/m", "--batching_parameters_file=f"], "without --enable_batching"),
        (["--model_base_path=/m", "--engine=torch"], "invalid choice: 'torch'"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_line(flags: list[str], text: str) -> None:
    ended = run(*flags)
    assert ended.returncode == 2
    assert ended.stderr.startswith("featurewire serve: ")
    assert text in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "models.config"
    broken.write_text("model_config_list {\n  confg { }\n}\n")
    ended = run(f"--model_config_file={broken}", f"--port={free_port()}")
    assert ended.returncode == 1
    assert (
        f"{broken}:2: Error parsing text-format tensorflow.serving.ModelServerConfig"
        in ended.stderr
    )
    missing = run(f"--model_config_file={tmp_path / 'none'}", f"--port={free_port()}")
    assert missing.returncode == 1
    assert f"cannot read {tmp_path / 'none'}: No such file or directory" in missing.stderr


@pytest.mark.parametrize(
    ("swap", "text"),
    [
        ({"server_cert": "/etc/ssl/cert.pem"}, "they are the contents, not paths"),
        ({"server_key": None}, "server_key is missing"),
        ({"custom_ca": "nonsense"}, "custom_ca is not a certificate"),
        ({"custom_ca": None}, "client_verify needs custom_ca"),
        ({"server_key": "another"}, "not a private key and its certificate"),
    ],
)
def test_wrong_certificates_are_named(tmp_path: Path, authority, swap: dict, text: str) -> None:
    certificate = authority.issue_cert("localhost")
    fields = {
        "server_key": certificate.private_key_pem.bytes().decode(),
        "server_cert": certificate.cert_chain_pems[0].bytes().decode(),
        "custom_ca": authority.cert_pem.bytes().decode(),
    } | swap
    if swap.get("server_key") == "another":
        fields["server_key"] = authority.issue_cert("x").private_key_pem.bytes().decode()
    lines = [f"{name}: {quoted(value)}" for name, value in fields.items() if value]
    file = tmp_path / "ssl.config"
    file.write_text("\n".join([*lines, "client_verify: true"]))
    with pytest.raises(ServingError, match=text) as caught:
        ssl_config(parse([f"--ssl_config_file={file}", "--model_base_path=/m"]))
    assert str(file) in caught.value.message


def test_labels_at_a_cold_start_need_the_flag(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(config_text(tiny_model, more='version_labels { key: "stable" value: 2 }'))
    ended = run(f"--model_config_file={file}", f"--port={free_port()}")
    assert ended.returncode == 1
    assert "Request to assign label to version 2 of model tiny" in ended.stderr
    assert "--allow_version_labels_for_unavailable_models" in ended.stderr


def test_the_config_file_is_followed_and_a_broken_one_changes_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    file, log = tmp_path / "models.config", tmp_path / "log"
    file.write_text(config_text(tiny_model, more='version_labels { key: "stable" value: 2 }'))
    server = ServerProcess(
        f"--model_config_file={file}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models",
        log=log,
    ).start()
    try:
        with stub_for(server.target) as stub:
            assert stub.embed(spec(label="stable")).shape == (1, 8)
            file.write_text("model_config_list { oops }")
            wait_until(
                lambda: (
                    f"{file}:1: Error parsing text-format tensorflow.serving.ModelServerConfig"
                    in log.read_text()
                )
            )
            assert stub.states() == {2: "AVAILABLE"}
            file.write_text(config_text(tiny_model, name="renamed"))
            wait_until(lambda: "renamed version 2: AVAILABLE" in log.read_text())
            assert stub.embed(spec("renamed")).shape == (1, 8)
            wait_until(lambda: stub.states() == {2: "END"})
    finally:
        assert server.stop() == 0


def test_a_server_without_a_loadable_version_answers_why(tmp_path: Path) -> None:
    (tmp_path / "model" / "1").mkdir(parents=True)
    with (
        serving(
            tmp_path / "model", "--load_retry_interval_micros=100000", log=tmp_path / "log"
        ) as server,
        stub_for(server.target) as stub,
    ):
        status = stub.status().model_version_status[0].status
        assert status.error_code == 5
        assert "Could not find SavedModel .pb or .pbtxt" in status.error_message
        code, _ = code_and_text(lambda: stub.predict(predict_request(image_bytes=[JPEG])))
        assert code is grpc.StatusCode.NOT_FOUND
        complete = write_tiny_model(tmp_path / "elsewhere", 2)
        complete.rename(tmp_path / "model" / "2")
        wait_until(lambda: stub.states().get(2) == "AVAILABLE")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_requests_in_flight_finish(tmp_path: Path, number: int) -> None:
    base = slow_model(tmp_path / "slow")
    with (
        serving(base, log=tmp_path / "log", model="slow") as server,
        stub_for(server.target) as stub,
    ):
        answers: list[Any] = []
        request = predict_request(spec("slow"), x=[b"ab"])
        calling = threading.Thread(target=lambda: answers.append(stub.predict(request)))
        calling.start()
        started = tmp_path / "slow-started"
        wait_until(started.exists)
        server.process.send_signal(number)
        wait_until(lambda: "stopping" in (tmp_path / "log").read_text())
        (tmp_path / "slow-finish").touch()
        calling.join(TIMEOUT)
        assert answers
        assert answers[0].outputs["y"].string_val == [b"done"]
        assert server.process.wait(TIMEOUT) == 0


@pytest.mark.slow
def test_idle_connections_leave_files_for_decoding(tmp_path: Path) -> None:
    """TensorFlow opens a file to decode an image, and aborts the process if it cannot."""
    write_split_model(tmp_path / "m")
    limited = tmp_path / "python"
    limited.write_text(f'#!/bin/sh\nulimit -n 64\nexec {sys.executable} "$@"\n')
    limited.chmod(0o755)
    server = ServerProcess(
        "--model_name=m", f"--model_base_path={tmp_path / 'm'}", "--engine=tensorflow",
        log=tmp_path / "log", python=str(limited),
    ).start()  # fmt: skip
    photo = (ROOT / "samples" / "photos" / "coffee.jpg").read_bytes()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        client = stack.enter_context(featurewire.Client(server.target, model="m", timeout=60))
        assert client.status().versions[0].available  # it is connected

        def one_more_is_closed() -> bool:
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            idle.settimeout(0.2)
            try:
                # The server greets the connections that it accepts.
                return idle.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(one_more_is_closed)
        assert client.embed(photo).vector.shape == (24,)
        assert server.process.poll() is None


@pytest.mark.slow
def test_requests_that_wait_for_a_thread_stay_with_their_callers(tmp_path: Path) -> None:
    base = slow_model(tmp_path / "slow")
    request = predict_request(spec("slow"), x=[bytes(1_000_000)])
    with (
        serving(base, "--grpc_max_threads=2", log=tmp_path / "log", model="slow") as server,
        contextlib.ExitStack() as channels,
    ):
        stubs = [channels.enter_context(stub_for(server.target)) for _ in range(10)]
        before = resident(server.pid)
        calls = [stub.start(PREDICTION + "Predict", request, None) for stub in stubs * 30]
        wait_until((tmp_path / "slow-started").exists)
        # After this answer, everything sent before it has arrived or is held back.
        assert [stub.states("slow") for stub in stubs]
        # The server receives 64 of the 300 messages of a megabyte, and 64 KiB of each other one.
        assert resident(server.pid) - before < 150_000_000
        (tmp_path / "slow-finish").touch()
        assert {call.code() for call in calls} == {grpc.StatusCode.OK}


def resident(pid: int) -> int:
    """Memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def slow_model(base: Path) -> Path:
    """A SavedModel whose run writes `<base>-started` and ends when `<base>-finish` exists."""
    import tensorflow as tf

    module = tf.Module()

    def pattern(count):
        return tf.strings.join([f"{base}-finish", tf.strings.substr(tf.as_string(count), 0, 0)])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(x):
        write = tf.io.write_file(f"{base}-started", b"")
        with tf.control_dependencies([write]):
            # The pattern depends on the count; otherwise the optimiser would check only once.
            end = tf.while_loop(
                lambda _count, found: found == 0,
                lambda count, _found: (count + 1, tf.size(tf.io.matching_files(pattern(count)))),
                [tf.constant(0), tf.constant(0)],
            )
        with tf.control_dependencies(end):
            return {"y": tf.fill(tf.shape(x), "done")}

    module.serve = serve
    tf.saved_model.save(module, str(base / "1"), signatures={"serving_default": serve})
    return base


@pytest.mark.slow
def test_it_serves_without_uvloop(tiny_model: Path, tmp_path: Path) -> None:
    """The server runs like this on Windows, because uvloop does not publish a wheel for it."""
    (tmp_path / "uvloop.py").write_text("raise ImportError('no uvloop here')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "2"}
    flags = ("--model_name=tiny", f"--model_base_path={tiny_model}")
    server = ServerProcess(
        *flags, log=tmp_path / "log", environment=environment, new_interpreter=True
    )
    server.start()
    try:
        with featurewire.Client(server.target, model="tiny") as client:
            embedding = client.embed(JPEG)
            expected = expected_vector(JPEG, version=embedding.version)
            assert embedding.vector.tolist() == expected.tolist()
    finally:
        assert server.stop() == 0


def test_version_is_printed() -> None:
    ended = run("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("featurewire-server 0.1.0")
