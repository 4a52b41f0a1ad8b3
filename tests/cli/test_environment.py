"""`FEATUREWIRE_SERVER` and the like set defaults of the commands only."""

from __future__ import annotations

import argparse

import pytest

import featurewire
from featurewire._cli.embed import embed_parser
from featurewire._cli.server_options import NAMES, apply_environment
from featurewire._cli.status import status_parser
from featurewire.plugin.environment import option, variable
from tests.support.usage import help_of, options_in

HERE = {"FEATUREWIRE_SERVER": "localhost:8500", "FEATUREWIRE_MODEL": "tiny"}


def options(*argv: str, **environment: str) -> argparse.Namespace:
    parser = status_parser()
    args = parser.parse_args(argv)
    apply_environment(parser, args, environment=HERE | environment)
    return args


def complaint(capsys, *argv: str, **environment: str) -> str:
    with pytest.raises(SystemExit) as raised:
        options(*argv, **environment)
    assert raised.value.code == 2
    return capsys.readouterr().err


@pytest.mark.usefixtures("images")
def test_both_commands_run_on_variables_alone(command, server):
    here = {"FEATUREWIRE_SERVER": server.target, "FEATUREWIRE_MODEL": "tiny"}
    assert command("status", environment=here).returncode == 0
    shown = command("embed", "photos", "--output", "out.npy", environment=here)
    assert shown.returncode == 0, shown.stderr


def test_options_win(command, server):
    elsewhere = {"FEATUREWIRE_SERVER": "nowhere.invalid:1", "FEATUREWIRE_MODEL": "other"}
    shown = command(
        *("status", "--server", server.target, "--model", "tiny"), environment=elsewhere
    )
    assert shown.returncode == 0, shown.stderr


def test_every_server_option_has_a_variable():
    for parser in (embed_parser(), status_parser()):
        group = help_of(parser).split("\nserver:\n")[1].split(":\n  --")[0]
        assert options_in(group) - {"--no-tls"} == {option(name) for name in NAMES}


def test_variables_are_read_as_their_options_are():
    texts = {
        "FEATUREWIRE_VERSION": "3",
        "FEATUREWIRE_TIMEOUT": "2.5",
        "FEATUREWIRE_TLS_CA": "ca.pem",
        "FEATUREWIRE_TLS_CERT": "cert.pem",
        "FEATUREWIRE_TLS_KEY": "key.pem",
        "FEATUREWIRE_TLS_SERVER_NAME": "a.example",
        "FEATUREWIRE_TOKEN_FILE": "token",
        "FEATUREWIRE_TLS": "1",
    }
    given = [option(name) for name in NAMES if variable(name) in texts and name != "tls"]
    values = [texts[variable(name)] for name in NAMES if variable(name) in texts and name != "tls"]
    pairs = [text for pair in zip(given, values, strict=True) for text in pair]
    taken, typed = vars(options(**texts)), vars(options(*pairs, "--tls"))
    assert {name: taken[name] for name in NAMES} == {name: typed[name] for name in NAMES}


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_counts_as_none(empty):
    args = options(**{variable(name): empty for name in NAMES if name not in ("server", "model")})
    assert (args.label, args.version, args.tls, args.token_file) == (None, None, None, None)


def test_an_empty_server_is_missing(capsys):
    assert "required: --server (or FEATUREWIRE_SERVER in the environment); see" in complaint(
        capsys, FEATUREWIRE_SERVER=""
    )


def test_a_version_that_is_given_wins_over_a_label_in_the_environment():
    args = options("--version", "3", FEATUREWIRE_LABEL="stable")
    assert (args.version, args.label) == (3, None)
    args = options("--label", "canary", FEATUREWIRE_VERSION="3")
    assert (args.version, args.label) == (None, "canary")


def test_no_tls_wins_over_every_variable_about_tls():
    tls = {"FEATUREWIRE_TLS": "1", "FEATUREWIRE_TLS_CA": "a", "FEATUREWIRE_TLS_SERVER_NAME": "b"}
    args = options("--no-tls", **tls)
    assert (args.tls, args.tls_ca, args.tls_server_name) == (False, None, None)
    args = options(**(tls | {"FEATUREWIRE_TLS": "no"}))
    assert (args.tls, args.tls_ca) == (False, None)
    args = options("--tls-ca", "mine", FEATUREWIRE_TLS="0")
    assert str(args.tls_ca) == "mine"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FEATUREWIRE_TIMEOUT": "soon"}, "FEATUREWIRE_TIMEOUT: 'soon' is not a number of seconds"),
        ({"FEATUREWIRE_VERSION": "new"}, "FEATUREWIRE_VERSION: 'new' is not a positive whole"),
        ({"FEATUREWIRE_TLS": "perhaps"}, "FEATUREWIRE_TLS: 'perhaps' is neither 1 nor 0"),
        (
            {"FEATUREWIRE_VERSION": "1", "FEATUREWIRE_LABEL": "a"},
            "FEATUREWIRE_LABEL and FEATUREWIRE_VERSION are both set; unset one, or give",
        ),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(capsys, environment, message):
    assert message in complaint(capsys, **environment)


def test_what_the_library_refuses_names_the_variable_it_came_from(command):
    here = HERE | {"FEATUREWIRE_SERVER": "http://localhost:8500"}
    shown = command("status", environment=here)
    assert shown.returncode == 2
    assert (
        "FEATUREWIRE_SERVER 'http://localhost:8500': give host:port without http://" in shown.stderr
    )
    shown = command("status", "--server", "localhost", environment=HERE)
    assert shown.returncode == 2
    assert "--server 'localhost': expected host:port" in shown.stderr


@pytest.mark.parametrize("name", ["server", "model", "label"])
def test_an_empty_option_is_refused(command, name):
    shown = command("status", option(name), "", environment=HERE)
    assert shown.returncode == 2
    assert option(name) in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_help_names_the_variables(command):
    for name in ("embed", "status"):
        assert "FEATUREWIRE_SERVER" in command(name, "--help").stdout


def test_the_library_does_not_read_them(monkeypatch):
    monkeypatch.setenv("FEATUREWIRE_SERVER", "localhost:8500")
    monkeypatch.setenv("FEATUREWIRE_MODEL", "tiny")
    with pytest.raises(TypeError, match=r"target|model"):
        featurewire.Client()  # type: ignore[call-arg]
