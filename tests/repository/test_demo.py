"""`make demo` checks within seconds whether the hub is reachable, and says which module it uses."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.models import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "local_stack.py"
COMMAND = """#!{python}
import signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.support import warm
warm.use_fork_servers(Path({folder!r}))
process = warm.start([{featurewire!r}, *sys.argv[1:]])
signal.signal(signal.SIGTERM, lambda *_: process.terminate())
sys.exit(process.wait())
"""
"""A `featurewire` command that is forked, like other programs of the tests."""
DEMO = """
import sys
from pathlib import Path
root, models, command = map(Path, sys.argv[1:4])
sys.path.insert(0, str(root / "scripts"))
import demo, local_stack
local_stack.MODELS, local_stack.FEATUREWIRE, local_stack.ROOT = models, command, models
del sys.argv[1:4]
sys.exit(demo.main())
"""
"""`scripts/demo.py` with its models in another folder."""


@pytest.fixture
def stack():
    spec = importlib.util.spec_from_file_location("local_stack", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub() -> Iterator[str]:
    """A web server: `/module` redirects to an archive, `/page` is a web page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/module"):
                self.send_response(302)
                self.send_header("Location", "/archive")
                self.end_headers()
                return
            self.send_response(404 if self.path.startswith("/absent") else 200)
            self.end_headers()
            self.wfile.write(b"\x1f\x8b..." if self.path == "/archive" else b"<html>")

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_hub_with_the_module_is_used_and_anything_else_has_a_reason(stack, hub):
    assert stack.trouble_with_hub(f"{hub}/module") is None
    assert "not a module" in stack.trouble_with_hub(f"{hub}/page")
    assert "Not Found" in stack.trouble_with_hub(f"{hub}/absent")


def test_a_hub_that_is_silent_is_given_up(stack):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/module"
        assert stack.trouble_with_hub(address, seconds=0.2) is not None


@pytest.mark.parametrize(
    ("trouble", "taken"), [(None, "the hub's"), ("no route", "stand-in")], ids=["route", "no route"]
)
def test_without_a_module_named_it_takes_the_real_one_where_it_can(
    stack, monkeypatch, tmp_path, capsys, trouble, taken
):
    monkeypatch.setattr(stack, "MODELS", tmp_path)
    monkeypatch.setattr(stack, "trouble_with_hub", lambda: trouble)
    monkeypatch.setattr(stack, "exported", lambda module: module)
    assert stack.prepared("auto") == {"the hub's": stack.HUB}.get(taken, taken)
    assert ("uses the stand-in" in capsys.readouterr().out) == (trouble is not None)


def test_a_real_module_that_was_exported_before_needs_no_hub(stack, monkeypatch, tmp_path):
    monkeypatch.setattr(stack, "MODELS", tmp_path)
    monkeypatch.setattr(stack, "trouble_with_hub", lambda: pytest.fail("the hub was asked"))
    (stack.base_path_of(stack.HUB) / "1").mkdir(parents=True)
    monkeypatch.setattr(stack, "exported", lambda module: module)
    assert stack.prepared("auto") == stack.HUB


@pytest.mark.slow
def test_it_shows_what_the_server_says_of_its_loading(stack, tmp_path, capfd):
    write_tiny_model(tmp_path, 1)
    with stack.serving(tmp_path):
        assert "  inception_resnet_v2 version 1: AVAILABLE\n" in capfd.readouterr().out


@pytest.fixture
def featurewire(tmp_path: Path) -> Path:
    """Run the command in a forked process, which saves the imports."""
    real = Path(sys.executable).with_name("featurewire")
    folder = warm.folder_of_fork_servers()
    if folder is None:
        return real
    command = tmp_path / "featurewire"
    command.write_text(
        COMMAND.format(
            python=sys.executable, root=str(ROOT), folder=str(folder), featurewire=str(real)
        )
    )
    command.chmod(0o755)
    return command


def test_the_demo_leads_from_a_module_to_vectors(small_stand_in_module, featurewire, tmp_path):
    models = tmp_path / "models"
    done = warm.run(
        ["-c", DEMO, ROOT, models, featurewire, "--module", small_stand_in_module],
        capture_output=True,
        text=True,
        timeout=250,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (version,) = models.glob("*/1/assets.extra/featurewire.json")
    assert version.exists()
    photos = len(list((ROOT / "samples" / "photos").glob("*.jpg")))
    assert f"\n{4 * photos} vectors in " in done.stdout
    assert "The model is the stand-in" in done.stdout
    rows = [line for line in done.stdout.splitlines() if "    192  " in line]
    assert len(rows) == 4 * photos
