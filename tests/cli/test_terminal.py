"""Progress: a bar on a terminal, and only the summary elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import threading

import pytest

from featurewire._cli import formats, progress
from featurewire._cli.embed import embed
from featurewire._cli.progress import Snapshot, bar, duration, line
from tests.cli.conftest import FEATUREWIRE, jpeg
from tests.client.misbehaving import eventually


def snapshot(**changes) -> Snapshot:
    values = {"done": 250, "failed": 0, "total": 1000, "complete": True, "rate": 50.0}
    return Snapshot(**(values | changes))


def test_a_bar_shows_share_rate_and_time_left():
    assert bar(snapshot(), 78) == (
        "[" + "#" * 10 + "." * 30 + "] 250/1000  50.0 images/s  15s left"
    )


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_a_bar_never_wraps(columns):
    for now in (snapshot(), snapshot(failed=12), snapshot(done=10**9, total=10**9)):
        assert len(bar(now, columns)) <= columns


def test_while_files_are_still_being_found_there_is_no_time_left():
    now = snapshot(complete=False)
    assert bar(now, 80) == "250/1000+  50.0 images/s"
    assert line(now) == "250 of 1000 or more images, 50.0 images/s"


def test_rows_that_are_written_are_told_as_rows():
    assert line(snapshot(unit="rows")) == "250 of 1000 rows, 50.0 rows/s, 15s left"


def test_progress_is_told_while_an_output_is_written(arguments, tmp_path, monkeypatch, capsys):
    write = formats.Npy.write

    def slow(self, paths, rows, **counts):
        def each():
            yield from rows
            with eventually() as until:
                until(lambda: shown().count("99 of 99 rows") > 0)

        write(self, paths, each(), **counts)

    told = []

    def shown() -> str:
        told.append(capsys.readouterr().err)
        return "".join(told)

    monkeypatch.setattr(formats.Npy, "write", slow)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    assert embed(arguments[1:]) == 1
    assert "featurewire embed: writing out.npy: 99 of 99 rows, " in shown()
    assert "99 rows, 99 of them new" in shown()


def test_a_stalled_run_shows_no_time_left():
    assert line(snapshot(rate=0.0, failed=3)) == "250 of 1000 images, 0.0 images/s, 3 failed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"),
        (59.4, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (7620, "2h07m"),
        (443000, "5d03h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def on_a_terminal(arguments: list[str], **options) -> tuple[int, str]:
    """Run the command with standard error on a pseudo-terminal; returns its status and the text."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [FEATUREWIRE, *arguments], stdin=subprocess.DEVNULL, stderr=child, **options
    )
    os.close(child)
    shown: list[bytes] = []

    def drain() -> None:
        try:
            while data := os.read(parent, 4096):
                shown.append(data)
        except OSError:  # on Linux, after the last writer has closed it
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    status = process.wait(60)
    reader.join(60)
    os.close(parent)
    return status, b"".join(shown).decode()


@pytest.fixture
def arguments(tmp_path, server) -> list[str]:
    for number in range(100):
        (tmp_path / f"{number:03}.jpg").write_bytes(jpeg(number) if number != 7 else b"text")
    server.seconds_per_image = 0.01
    return [*("embed", ".", "--output", "out.npy", "--server", server.target, "--model", "tiny")]


def test_on_a_terminal_a_bar_runs_and_is_gone_at_the_end(arguments, tmp_path):
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    status, shown = on_a_terminal(arguments, cwd=tmp_path, env=environment)
    assert status == 1
    assert "/100  " in shown
    assert " images/s" in shown
    # The text that stays on the screen follows the last carriage return of each line.
    lines = [text.rsplit("\r", 1)[-1].replace("\x1b[K", "") for text in shown.split("\r\n")]
    assert lines[0] == "featurewire embed: 007.jpg: unsupported" or lines[0].startswith(
        "featurewire embed: 007.jpg: unsupported:"
    )
    assert lines[1].startswith("featurewire embed: out.npy and out.jsonl: 99 rows, 99 of them new")
    assert lines[2:] == [""]


@pytest.mark.parametrize("options", [{"TERM": "dumb"}, {"TERM": "xterm", "quiet": "--quiet"}])
def test_no_bar_where_it_would_be_noise(arguments, tmp_path, options):
    quiet = [options.pop("quiet")] if "quiet" in options else []
    status, shown = on_a_terminal([*arguments, *quiet], cwd=tmp_path, env=os.environ | options)
    assert status == 1
    assert "\x1b" not in shown
    assert "images/s" not in shown if quiet else "99 rows" in shown
