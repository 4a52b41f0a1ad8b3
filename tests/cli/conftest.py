"""The command as a separate process, and servers for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.fake_serving import FakeServing
from tests.support import warm

FEATUREWIRE = Path(sys.executable).with_name("featurewire")
TIMEOUT = 120  # seconds


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `featurewire ARGUMENTS` in `tmp_path` to the end, optionally through the command
    `before`."""

    def run(*arguments: object, **options) -> subprocess.CompletedProcess:
        options.setdefault("cwd", tmp_path)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        environment = bare_environment() | options.pop("environment", {})
        before = options.pop("before", ())
        if not isinstance(options.get("input"), bytes):
            options.setdefault("text", True)
        words = [FEATUREWIRE, *map(_argument, arguments)]
        options |= {"capture_output": True, "timeout": TIMEOUT, "env": environment}
        if before:
            return subprocess.run([*before, *words], **options)
        return warm.run(words, imports=warm.CLIENT, **options)

    return run


def bare_environment() -> dict[str, str]:
    """Remove the variables that set options of the command."""
    return {name: text for name, text in os.environ.items() if not name.startswith("FEATUREWIRE_")}


def _argument(value: object) -> str | bytes:
    return value if isinstance(value, bytes) else str(value)


@pytest.fixture
def server() -> Iterator[FakeServing]:
    fake = FakeServing().start()
    yield fake
    fake.stop()


def jpeg(number: int) -> bytes:
    """Bytes that the fake server accepts as an image, different for each number."""
    return b"\xff\xd8\xff" + b"image %d" % number


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with 12 different images in two subfolders."""
    for number in range(12):
        path = tmp_path / "photos" / ("a" if number < 6 else "b/c") / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    return tmp_path / "photos"
