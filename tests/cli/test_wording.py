"""The command rewrites the library's arguments in messages as its own options."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

import featurewire
from featurewire import ChannelConfig, Client, TLSConfig
from featurewire._advice import ADVICE
from featurewire.plugin.wording import ADVICE_IN_OPTIONS, cli_message

ARGUMENT = re.compile(
    r"\w+=…|(TLS|Channel|Stream|Retry)Config\(|wait_until_ready\(|metadata\(\)|^target "
)
LIBRARY = Path(featurewire.__file__).parent
UNREACHABLE = re.compile(
    # Settings without an option.
    r"ChannelConfig\((metadata|load_balancing|options|compression|\{\})="
)


def texts_of(tree: ast.AST) -> Iterator[str]:
    """All texts except docstrings, with `{}` for inserted values."""
    inside: set[int] = set()
    for node in ast.walk(tree):  # outer nodes come first
        if id(node) in inside:
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            inside |= {id(each) for each in ast.walk(node)}
            parts = (each.value if isinstance(each, ast.Constant) else "{}" for each in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_only_advice_and_subjects_name_arguments():
    apart = {"_advice.py", "_cli", "_tfs", "plugin"}
    texts = {
        text
        for path in LIBRARY.rglob("*.py")
        if not apart & set(path.relative_to(LIBRARY).parts)
        for text in texts_of(ast.parse(path.read_text()))
    }
    found = [text for text in texts if ARGUMENT.search(text) and not UNREACHABLE.search(text)]
    assert found == []


def test_the_command_words_every_advice_that_names_an_argument():
    assert ADVICE_IN_OPTIONS.keys() <= ADVICE.keys()
    named = {key for key, text in ADVICE.items() if ARGUMENT.search(text)}
    assert named - ADVICE_IN_OPTIONS.keys() == set()
    assert [text for text in ADVICE_IN_OPTIONS.values() if ARGUMENT.search(text)] == []


def test_every_advice_is_given_somewhere():
    used = "".join(path.read_text() for path in LIBRARY.rglob("*.py") if path.name != "_advice.py")
    kinds = {"which input", "which output"}
    assert [key for key in ADVICE.keys() - kinds if f'"{key}"' not in used] == []


def refusal(make: Callable[[], object]) -> featurewire.ConfigError:
    with pytest.raises(featurewire.ConfigError) as raised:
        make()
    return raised.value


@pytest.mark.parametrize(
    ("make", "theirs", "ours"),
    [
        (
            lambda: Client("a", model="m"),
            "target='a': expected",
            "--server 'a': expected host:port",
        ),
        (lambda: Client("a:1", model=""), "model='': expected", "--model '': expected the model's"),
        (
            lambda: Client("a:1", model="m", timeout=-1),
            *("timeout=-1: expected seconds", "--timeout -1: expected seconds"),
        ),
        (
            lambda: TLSConfig(ca=b"x").loaded(),
            *("TLSConfig(ca=…): expected PEM", "--tls-ca: expected PEM"),
        ),
        (lambda: TLSConfig(ca=Path("none")).loaded(), "cannot read none", "cannot read none"),
        (
            lambda: Client("a:1", model="m", channel=ChannelConfig(token="t")),
            "ChannelConfig(token=…): the token would be sent unencrypted to another machine; set ",
            "--token-file: the token would be sent unencrypted to another machine; add --tls or",
        ),
    ],
)
def test_arguments_become_options(make, theirs, ours):
    error = refusal(make)
    assert str(error).startswith(theirs)
    assert cli_message(error).startswith(ours)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_option_from_the_environment_is_named_by_its_variable():
    error = refusal(lambda: Client("a", model="m"))
    assert cli_message(error, ["server"]).startswith("FEATUREWIRE_SERVER 'a': expected host:port")


@pytest.mark.usefixtures("images")
def test_a_slow_server_is_answered_with_the_option(command, server):
    server.seconds_per_image = 5
    shown = command(
        *("embed", "photos/a/00.jpg", "--output", "o.npy", "--timeout", "0.3"),
        *("--server", server.target, "--model", "tiny", "--patience", "0.1"),
    )
    assert shown.returncode == 1
    assert "raise --timeout or send less at once" in shown.stderr


@pytest.mark.usefixtures("images")
def test_an_unknown_signature_and_input_name_the_options(command, server):
    common = ["--server", server.target, "--model", "tiny", "--output", "o.npy"]
    shown = command("embed", "photos", "--signature", "embed", *common)
    assert (shown.returncode, "with --signature\n" in shown.stderr) == (1, True)
    shown = command("status", *common[:2], "--model", "other")
    assert "check --model, --version and --label" in shown.stderr


@pytest.mark.usefixtures("images")
def test_credentials_that_are_refused_name_the_options(command, server):
    server.predict_error = (grpc.StatusCode.UNAUTHENTICATED, "no token")
    shown = command(
        *("embed", "photos", "--output", "o.npy"), *("--server", server.target, "--model", "tiny")
    )
    assert "check --token-file and the --tls options" in shown.stderr
    assert "Config(" not in shown.stderr
