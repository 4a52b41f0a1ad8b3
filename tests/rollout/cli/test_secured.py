"""The steps with mutual TLS, with a token, and with replicas that poll the file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from featurewire import TLSConfig
from tests.cli.fake_serving import FakeServing
from tests.rollout.stack import Stack
from tests.support import warm
from tests.support.process import ServerProcess

SECURED = ["--tls-ca=ca.pem", "--tls-cert=cert.pem", "--tls-key=key.pem", "--token-file=token"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate files of the client, and of the server in its own format."""
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    mine = authority.issue_cert("operator.example")
    mine.private_key_pem.write_to_path(str(folder / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "server-key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "server-cert.pem"))
    contents = {
        "server_key": "server-key.pem",
        "server_cert": "server-cert.pem",
        "custom_ca": "ca.pem",
    }
    lines = [f"{name}: {json.dumps((folder / pem).read_text())}" for name, pem in contents.items()]
    (folder / "ssl.config").write_text("\n".join([*lines, "client_verify: true\n"]))
    (folder / "token").write_text("secret\n")
    return folder


@pytest.fixture(scope="module")
def stack(folder: Path, tiny_model: Path) -> Iterator[Stack]:
    made = Stack(folder, tiny_model)
    made.servers = [
        ServerProcess(
            f"--model_config_file={made.config}",
            "--model_config_file_poll_wait_seconds=1",
            "--allow_version_labels_for_unavailable_models",
            "--file_system_poll_wait_seconds=0",
            f"--ssl_config_file={folder / 'ssl.config'}",
            log=folder / f"{number}.log",
        )
        for number in range(2)
    ]
    files: dict[str, Any] = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
    with made.running(TLSConfig(**files)):
        yield made


def rollout(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run(
        [Path(sys.executable).with_name("featurewire"), "rollout", *arguments],
        imports=warm.CLIENT,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.slow  # each step waits for polls of a second
def test_a_rollout_over_mutual_tls_by_polling_alone(stack: Stack, folder: Path) -> None:
    stack.publish(2)
    (folder / "images").mkdir()
    for number in range(6):
        (folder / "images" / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" + bytes([number]))
    common = [f"--server={server.target}" for server in stack.servers]
    common += ["--config=models.config", "--model=tiny", *SECURED]
    polled = [*common, "--poll-only", "--timeout=120", "--audit=audit"]
    for step in (
        ["start", "--version=2", "--no-memory-check"],
        ["promote", "--accept-new-space"],
        ["rollback"],
        ["retire"],
    ):
        ended = rollout(folder, *step, *polled)
        assert ended.returncode == 0, ended.stderr
        if step[0] == "start":
            check = rollout(folder, "check", "--images=images", "--json", *polled)
            assert json.loads(check.stdout)["images"]["compared"] == 6, check.stderr
    shown = rollout(folder, "status", "--json", *common)
    assert json.loads(shown.stdout)["phase"] == "at rest"
    audit = [json.loads(line) for line in (folder / "audit").read_text().splitlines()]
    assert [line["command"] for line in audit if line["step"] == "done"] == [
        "start",
        "check",
        "promote",
        "rollback",
        "retire",
    ]
    assert all(line["time"] and line["user"] and line["host"] for line in audit)


def test_without_the_certificate_the_replicas_are_named(stack: Stack, folder: Path) -> None:
    target = stack.servers[0].target
    plain = rollout(folder, "status", f"--server={target}", "--model=tiny")
    assert plain.returncode == 1
    assert f"{target} cannot be reached" in plain.stdout
    foreign = rollout(folder, "status", f"--server={target}", "--model=tiny", "--tls-ca=ca.pem")
    assert foreign.returncode == 1
    assert f"{target} cannot be reached" in foreign.stdout


class Insisting(FakeServing):
    """Answers only calls with the token."""

    def _resolve(self, spec, context):
        if ("authorization", "Bearer secret") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return super()._resolve(spec, context)


def test_the_token_travels_with_every_call(folder: Path) -> None:
    credentials = grpc.ssl_server_credentials(
        [((folder / "server-key.pem").read_bytes(), (folder / "server-cert.pem").read_bytes())]
    )
    server = Insisting().start(credentials)
    try:
        asked = ["status", f"--server={server.target}", "--model=tiny", "--tls-ca=ca.pem"]
        assert rollout(folder, *asked, "--token-file=token").returncode == 0
        refused = rollout(folder, *asked)
        assert refused.returncode == 1
        assert "no token" in refused.stdout
    finally:
        server.stop()
