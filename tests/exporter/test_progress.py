"""Progress of a long command, and the lines that stay on the terminal."""

from __future__ import annotations

import io

import pytest

from featurewire_exporter.progress import Progress


class Terminal(io.StringIO):
    """The text on a terminal that interprets carriage returns and "clear to the end"."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        lines = [""]
        for part in self.getvalue().replace("\r\x1b[K", "\r").splitlines(keepends=True):
            match part[-1]:
                case "\n":
                    lines[-1] += part[:-1]
                    lines.append("")
                case "\r":
                    lines[-1] = ""
                case _:
                    lines[-1] += part
        return lines


def work(stream: io.StringIO) -> None:
    progress = Progress(stream)
    progress.step("Fetching")
    progress.bytes(1, 10)
    progress.step("Trying one")
    progress.result("one: 0.9" + 300 * "9")
    progress.step("Trying two")
    progress.result("two: 0.95")
    progress.step("Writing")
    progress.end()


def test_on_a_terminal_results_stay_and_steps_do_not():
    terminal = Terminal()
    work(terminal)
    *kept, last = (line.split(" s] ", 1)[-1] for line in terminal.screen)
    assert kept == ["one: 0.9" + 300 * "9", "two: 0.95"]
    assert last == ""


def test_elsewhere_steps_and_results_are_lines():
    stream = io.StringIO()
    work(stream)
    said = [line.split(" s] ", 1)[1] for line in stream.getvalue().splitlines()]
    assert [line[:10] for line in said] == [
        "Fetching",
        "Trying one",
        "one: 0.999",
        "Trying two",
        "two: 0.95",
        "Writing",
    ]


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_nobody_has_to_read_it(stream):
    progress = Progress(stream)
    if stream is not None:
        stream.write = _broken
    progress.step("Fetching")
    progress.result("one: 0.9")
    progress.end()


def _broken(_text: str) -> None:
    raise BrokenPipeError
