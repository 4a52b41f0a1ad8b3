"""Wrong usage gives one line and exit status 2, without any call to a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurewire._cli.main import run

GIVEN = ["--config", "models.config", "--server", "127.0.0.1:1", "--model", "m"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "rollout: the following arguments are required: STEP"),
        (["strat"], "rollout: argument STEP: invalid choice: 'strat'"),
        (["start"], "rollout start: the following arguments are required: --config, --server"),
        (["start", *GIVEN], "required: --version"),
        (["start", *GIVEN, "--version", "0"], "argument --version: '0' is not a positive whole"),
        (["promote", *GIVEN, "--timeout", "x"], "argument --timeout: 'x' is not a number of sec"),
        (["retire", *GIVEN, "--allow-missing", "-1"], "--allow-missing"),
        (["status", *GIVEN, "--version", "1"], "unrecognized arguments: --version 1"),
        (["status", *GIVEN, "--tls-cert", "x"], "--tls-cert and --tls-key must be given together"),
        (["status", *GIVEN, "--tls-server-name", "x"], "needs --tls or --tls-ca FILE"),
        (["status", *GIVEN, "--no-tls", "--tls-ca", "x"], "--tls-ca: not allowed with --no-tls"),
        (["status", *GIVEN, "--server", "nowhere"], "'nowhere': expected host:port"),
        (["status", *GIVEN, "--tls-ca", "none.pem"], "cannot read none.pem: No such file"),
        (["status", *GIVEN, "--token-file", "none"], "--token-file none: No such file"),
        (["status", *GIVEN[2:], "--config", "configmap:x"], "not configmap:NAMESPACE/NAME/KEY"),
        (["check", *GIVEN, "--images", ".", "--strictness", "2"], "invalid choice: '2'"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["rollout", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("featurewire rollout")
    assert reason in said.err
    assert said.err.endswith(" --help\n")
    assert said.err.count("\n") == 1


def test_tls_comes_from_the_environment_unless_no_tls_is_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATUREWIRE_TLS_CA", "none.pem")
    status = ["status", "--server", "127.0.0.1:1", "--model", "m"]
    assert run(["rollout", *status]) == 2
    assert "cannot read none.pem" in capsys.readouterr().err
    assert run(["rollout", *status, "--no-tls"]) == 1
    assert "127.0.0.1:1 cannot be reached" in capsys.readouterr().out


def test_the_token_does_not_travel_in_the_clear(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret")
    token = ["--token-file", str(tmp_path / "token"), "--model", "m"]
    assert run(["rollout", "status", "--server", "features.example:8500", *token]) == 2
    assert "--token-file" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
