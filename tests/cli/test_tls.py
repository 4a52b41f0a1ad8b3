"""Both commands with a server that requires TLS, mutual TLS or a token."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import trustme

from tests.cli.conftest import jpeg
from tests.cli.fake_serving import FakeServing


class Insisting(FakeServing):
    """Answers only calls with the token."""

    def _resolve(self, spec, context):
        if ("authorization", "Bearer secret") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return super()._resolve(spec, context)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine = authority.issue_cert("client.example")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    return authority


@pytest.fixture
def server(authority: trustme.CA):
    issued = authority.issue_cert("localhost", "127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    server = Insisting().start(credentials)
    yield server
    server.stop()


MUTUAL = ["--tls-ca", "ca.pem", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]
TOKEN = ["--token-file", "token"]


def test_both_commands_speak_mutual_tls_and_carry_the_token(command, server):
    common = ["--server", server.target, "--model", "tiny", *MUTUAL, *TOKEN]
    assert command("status", *common).returncode == 0
    shown = command("embed", "a.jpg", "--output", "out.npy", *common)
    assert shown.returncode == 0, shown.stderr


def test_the_name_in_the_certificate_can_be_named(command, server):
    common = ["--server", server.target, "--model", "tiny", *MUTUAL, *TOKEN]
    assert command("status", *common, "--tls-server-name", "localhost").returncode == 0
    shown = command("status", *common, "--tls-server-name", "other.example", "--timeout", "3")
    assert shown.returncode == 1
    assert "Hostname Verification" in shown.stderr


@pytest.mark.parametrize("missing", [["--tls-cert", "--tls-key"], ["--token-file"]])
def test_without_what_the_server_insists_on_there_is_one_line(command, server, missing):
    options = [*MUTUAL, *TOKEN]
    for option in missing:
        at = options.index(option)
        del options[at : at + 2]
    common = ["--server", server.target, "--model", "tiny", "--timeout", "3"]
    shown = command("embed", "a.jpg", "--output", "out.npy", *common, *options)
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the token is empty"),
        ("one\ntwo\n", r"the token contains '\n'"),
        ("é", "the token contains 'é'"),
    ],
)
def test_a_token_that_cannot_be_sent_is_wrong_usage(command, tmp_path, content, words):
    (tmp_path / "token").write_text(content)
    shown = command("status", "--server", "localhost:1", "--model", "tiny", *TOKEN)
    assert shown.returncode == 2
    assert f"--token-file: {words}" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_a_proxy_of_the_environment_is_named(command):
    shown = command(
        *("status", "--server", "features.invalid:8500", "--model", "tiny", "--timeout", "5"),
        environment={"http_proxy": "http://127.0.0.1:1", "https_proxy": "", "no_proxy": ""},
    )
    assert shown.returncode == 1
    # An empty variable of higher precedence turns the proxy off.
    assert "proxy" not in shown.stderr
    shown = command(
        *("status", "--server", "features.invalid:8500", "--model", "tiny", "--timeout", "5"),
        environment={"grpc_proxy": "http://127.0.0.1:1", "no_proxy": "", "no_grpc_proxy": ""},
    )
    assert shown.returncode == 1
    assert "the proxy in grpc_proxy; to bypass it, add the host to no_proxy" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
