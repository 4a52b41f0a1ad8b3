"""`featurewire status` as a process: the table, the object, the exit status as a health check."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from featurewire._cli import status as status_module
from featurewire.plugin.arguments import CommandFailure
from tests.cli.fake_serving import FakeServing, Version
from tests.support.process import free_port

START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50


@pytest.fixture
def status(command, server):
    """Run `featurewire status ARGUMENTS` against the fake server."""

    def run(*arguments: object):
        return command("status", *arguments, "--server", server.target, "--model", "tiny")

    return run


def test_versions_states_labels_and_messages_stand_in_a_table(status, server):
    server.versions = {
        1: Version(state=END),
        2: Version(),
        3: Version(),
        4: Version(state=END, error_code=3, error_message="no\nsaved_model.pb"),
        5: Version(state=LOADING),
    }
    server.current = 3
    server.labels = {"stable": 2, "canary": 3}
    shown = status()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        "version  state      labels  message",
        "5        LOADING",
        "4        END                no saved_model.pb",
        "3        AVAILABLE  canary",
        "2        AVAILABLE  stable",
        "1        END",
    ]


def test_the_same_as_an_object(status, server):
    server.versions = {1: Version(), 2: Version(state=END, error_code=5, error_message="gone")}
    server.labels = {"stable": 1, "canary": 1, "mine": 1}
    shown = status("--json", "--label", "mine")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout) == {
        "server": server.target,
        "model": "tiny",
        "available": True,
        "versions": [
            {
                "version": 2,
                "state": "END",
                "labels": [],
                "error_code": "NOT_FOUND",
                "error_message": "gone",
            },
            {
                "version": 1,
                "state": "AVAILABLE",
                "labels": ["stable", "canary", "mine"],
                "error_code": "OK",
                "error_message": "",
            },
        ],
    }


@pytest.mark.parametrize("state", [START, LOADING, UNLOADING, END])
def test_a_model_that_is_not_available_fails_the_check(status, server, state):
    server.versions = {1: Version(state=state)}
    shown = status()
    assert shown.returncode == 1
    assert shown.stdout.startswith("version  state")
    assert shown.stderr == (
        "featurewire status: tiny is not AVAILABLE; wait for it with --wait SECONDS\n"
    )


def test_the_version_that_is_asked_for_decides(status, server):
    server.versions = {1: Version(), 2: Version(state=LOADING)}
    assert status("--version", "1").returncode == 0
    shown = status("--version", "2", "--json")
    assert shown.returncode == 1
    assert json.loads(shown.stdout)["available"] is False
    assert "version 2 of tiny is not AVAILABLE" in shown.stderr
    shown = status("--version", "9")
    assert shown.returncode == 1
    assert shown.stderr == "featurewire status: the server lists no version 9 of tiny\n"


def test_a_label_that_the_server_does_not_know_fails_the_check(status):
    shown = status("--label", "nightly")
    assert shown.returncode == 1
    assert "nightly" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_an_unknown_model_is_one_line(command, server):
    shown = command("status", "--server", server.target, "--model", "other", "--json")
    assert shown.returncode == 1
    assert "other" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    answer = json.loads(shown.stdout)
    assert (answer["available"], answer["versions"]) == (False, [])
    assert "other" in answer["error"]


def test_nobody_at_the_address_is_one_line(command):
    target = f"127.0.0.1:{free_port()}"
    shown = command("status", "--server", target, "--model", "tiny", "--timeout", "2")
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert target in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_wait_sees_a_version_become_available(status, server):
    server.versions = {1: Version(state=LOADING)}
    server.after_a_look = lambda: setattr(server.versions[1], "state", AVAILABLE)
    shown = status("--wait", "20")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "1        AVAILABLE" in shown.stdout


def test_wait_sees_a_server_come_up(command):
    server = FakeServing(port=free_port())
    timer = threading.Timer(1.0, server.start)
    timer.start()
    shown = command("status", "--server", server.target, "--model", "tiny", "--wait", "20")
    timer.join()
    server.stop()
    assert shown.returncode == 0, shown.stderr


def test_wait_ends_with_its_time(status, server):
    server.versions = {1: Version(state=LOADING)}
    shown = status("--wait", "0.5")
    assert shown.returncode == 1
    assert "tiny is not AVAILABLE" in shown.stderr


# In the next two tests, a query longer than the wait would exceed the command's time limit.


def test_wait_ends_with_its_time_when_nothing_answers(command):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        shown = command(
            *("status", "--wait", "1", "--timeout", "600", "--model", "tiny"),
            *("--server", f"127.0.0.1:{silent.getsockname()[1]}"),
        )
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert len(shown.stderr.splitlines()) == 1


def test_an_unanswered_label_request_takes_no_longer_than_the_wait(command):
    over = threading.Event()

    class Silent(FakeServing):
        def _metadata(self, request, context):
            over.wait()

    server = Silent().start()
    try:
        shown = command(
            *("status", "--wait", "1", "--timeout", "600", "--model", "tiny"),
            *("--server", server.target),
        )
    finally:
        over.set()
        server.stop()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "1        AVAILABLE" in shown.stdout


@pytest.mark.timeout(30)  # a client's own timeout is longer
def test_a_look_at_a_silent_server_ends_by_itself(monkeypatch):
    monkeypatch.setattr(status_module, "LOOK_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CommandFailure, match="this server has never answered"):
            status_module.status(["--server", target, "--model", "tiny"])


def test_wait_does_not_wait_for_what_the_server_has_given_up(status, server):
    server.versions = {1: Version(state=END, error_code=3, error_message="broken")}
    # If the command kept waiting, its time limit would fail the test.
    shown = status("--wait", "600")
    assert shown.returncode == 1
    assert "broken" in shown.stdout
