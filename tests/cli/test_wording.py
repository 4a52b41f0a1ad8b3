"""The command rewrites the library's arguments in messages as its own options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import featurewire
from featurewire.plugin.wording import in_options

LIBRARY = Path(featurewire.__file__).parent
UNREACHABLE = re.compile(
    # Settings without an option.
    r"^(RetryConfig|StreamConfig|ChannelConfig|retry|channel|stream|tls|TLSConfig)\b.*"
    r"(expected|is above)"
    r"|ChannelConfig\((metadata|load_balancing|options)\b"
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


def test_no_advice_of_the_library_names_an_argument():
    texts = {
        text
        for path in LIBRARY.rglob("*.py")
        if not {"_cli", "_tfs", "plugin"} & set(path.relative_to(LIBRARY).parts)
        for text in texts_of(ast.parse(path.read_text()))
        if not UNREACHABLE.search(text)
    }
    assert any("timeout=…" in text for text in texts)
    argument = re.compile(
        r"\w+=…|(TLS|Channel|Stream|Retry)Config\(|wait_until_ready\(|metadata\(\)"
    )
    assert [text for text in map(in_options, texts) if argument.search(text)] == []


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("target 'a': expected host:port", "--server 'a': expected host:port"),
        ("model='': expected the model's name", "--model '': expected the model's name"),
        (
            "several inputs fit, name one with input=…",
            "several inputs fit, name one with --input-name",
        ),
        (
            "check TLSConfig(ca=…, cert=…, key=…, server_name=…) and the port",
            "check --tls-ca, --tls-cert, --tls-key, --tls-server-name and the port",
        ),
        ("TLSConfig(ca=a.pem): not a certificate: x", "--tls-ca a.pem: not a certificate: x"),
        ("TLSConfig: cannot read a.pem: gone", "cannot read a.pem: gone"),
        ("version=3 of x, option other=…", "--version 3 of x, option other=…"),
    ],
)
def test_arguments_become_options(theirs, ours):
    assert in_options(theirs) == ours


@pytest.mark.usefixtures("images")
def test_a_slow_server_is_answered_with_the_option(command, server):
    server.seconds_per_image = 5
    shown = command(
        *("embed", "photos/a/00.jpg", "--output", "o.npy", "--timeout", "0.3"),
        *("--server", server.target, "--model", "tiny", "--patience", "0.1"),
    )
    assert shown.returncode == 1
    assert "raise --timeout or send fewer images" in shown.stderr


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
