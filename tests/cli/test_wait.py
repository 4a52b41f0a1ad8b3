"""`featurewire embed --wait`: a job that starts together with its server."""

from __future__ import annotations

import os
import threading

import pytest

from tests.cli.conftest import bare_environment
from tests.cli.fake_serving import FakeServing, Version
from tests.cli.test_terminal import on_a_terminal
from tests.support.process import free_port

LOADING, AVAILABLE = 20, 30


@pytest.fixture
def embed(command, server, images):  # noqa: ARG001 - makes the folder `photos`
    def run(*arguments: str):
        common = ["--output", "o.npy", "--server", server.target, "--model", "tiny"]
        return command("embed", "photos", *arguments, *common)

    return run


def test_it_embeds_once_the_model_is_available(embed, server):
    server.versions = {1: Version(state=LOADING)}
    server.after_a_look = lambda: setattr(server.versions[1], "state", AVAILABLE)
    shown = embed("--wait", "30")
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr.splitlines()[0] == (
        "featurewire embed: waiting for tiny: version 1 is LOADING, 0s of 30s"
    )


@pytest.mark.usefixtures("images")
def test_it_embeds_once_the_server_is_up(command):
    server = FakeServing(port=free_port())
    timer = threading.Timer(1.0, server.start)
    timer.start()
    shown = command(
        *("embed", "photos", "--output", "o.npy", "--wait", "30"),
        *("--server", server.target, "--model", "tiny"),
    )
    timer.join()
    server.stop()
    assert shown.returncode == 0, shown.stderr


def test_after_that_time_it_ends_with_1_and_says_what_it_saw(embed, server, tmp_path):
    server.versions = {1: Version(state=LOADING)}
    shown = embed("--wait", "0.5", "--quiet")
    assert shown.returncode == 1
    assert shown.stderr == (
        "featurewire embed: tiny is not AVAILABLE: version 1 is LOADING; check the "
        "server's log, or wait longer\n"
    )
    assert os.listdir(tmp_path) == ["photos"]


def test_nobody_there_for_all_that_time_is_one_line(embed, server):
    server.stop()
    shown = embed("--wait", "0.5", "--quiet")
    assert shown.returncode == 1
    assert server.target in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_the_version_that_was_asked_for_is_waited_for(embed, server):
    server.versions = {1: Version(), 2: Version(state=LOADING)}
    shown = embed("--wait", "0.5", "--version", "2")
    assert shown.returncode == 1
    assert "version 2 of tiny is not AVAILABLE: version 2 is LOADING" in shown.stderr


def test_what_the_server_has_given_up_is_not_waited_for(embed, server):
    server.versions = {1: Version(state=50, error_code=3, error_message="broken")}
    # If the command kept waiting, its time limit would fail the test.
    shown = embed("--wait", "600")
    assert shown.returncode == 1
    assert "version 1 is END (INVALID_ARGUMENT: broken)" in shown.stderr


@pytest.mark.usefixtures("images")
def test_on_a_terminal_the_wait_is_one_line_that_changes(server, tmp_path):
    server.versions = {1: Version(state=LOADING)}
    status, shown = on_a_terminal(
        [
            *("embed", "photos", "--output", "o.npy", "--wait", "1.2"),
            *("--server", server.target, "--model", "tiny"),
        ],
        cwd=tmp_path,
        env=bare_environment() | {"TERM": "xterm", "COLUMNS": "80"},
    )
    assert status == 1
    assert "waiting for tiny: version 1 is LOADING, 0s of 1s\x1b[K\r" in shown
    lines = [text.rsplit("\r", 1)[-1].replace("\x1b[K", "") for text in shown.split("\r\n")]
    assert lines[0].startswith("featurewire embed: tiny is not AVAILABLE")
    assert lines[1:] == [""]
