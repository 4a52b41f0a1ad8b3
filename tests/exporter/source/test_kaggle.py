"""Handles of Kaggle pages, fetched by kagglehub from a loopback server."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support import warm

HANDLE = "http://tfhub.dev/google/some/feature_vector/1"
PAGE = "http://www.kaggle.com/models/google/some/tensorFlow1/feature-vector/2"
FETCH = """if True:
    import sys
    from pathlib import Path
    from featurewire_exporter.cli.command import run
    from featurewire_exporter.cli.verify import verify_parser
    from featurewire_exporter.progress import Progress

    def work(_stderr):
        from featurewire_exporter.source.fetch import fetch

        print(fetch(handle, Path(scratch), Progress(None)).directory)

    scratch, handle, *blocked = sys.argv[1:]
    sys.modules.update(dict.fromkeys(blocked))
    sys.exit(run(verify_parser(), work))
"""


@pytest.fixture
def proxy(tf1_module) -> Iterator[str]:
    """An HTTP proxy that imitates tfhub.dev, which redirects, and Kaggle, with its API on
    localhost."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith(HANDLE):
                self.send_response(301)
                self.send_header("Location", PAGE)
                self.end_headers()
            else:
                self.answer(b"<html>A model</html>", "text/html; charset=utf-8")

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service, _, call = self.path.rpartition("/")
            assert service == "http://localhost/api/v1/models.ModelApiService"
            assert (asked["ownerSlug"], asked["instanceSlug"]) == ("google", "feature-vector")
            if call == "ListModelInstanceVersionFiles":
                paths = [path for path in tf1_module.rglob("*") if path.is_file()]
                names = [{"name": str(path.relative_to(tf1_module))} for path in paths]
                self.answer(json.dumps({"files": names}).encode(), "application/json")
            else:
                content = (tf1_module / asked["path"]).read_bytes()
                self.answer(content, "application/octet-stream")

        def answer(self, body: bytes, content_type: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def fetched(proxy: str, tmp_path: Path, handle: str, *blocked: str) -> subprocess.CompletedProcess:
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "http_proxy": proxy,
        "HOME": str(tmp_path),
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "TFHUB_CACHE_DIR": str(tmp_path / "cache"),
    }
    argv = ["-c", FETCH, str(tmp_path / "scratch"), handle, *blocked]
    return warm.run(argv, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("handle", [HANDLE, pytest.param(PAGE, marks=pytest.mark.slow)])
def test_a_handle_that_leads_to_kaggle_is_fetched_by_kagglehub(proxy, tf1_module, tmp_path, handle):
    pytest.importorskip("kagglehub")
    done = fetched(proxy, tmp_path, handle)

    assert (done.returncode, done.stderr) == (0, "")
    directory = Path(done.stdout.strip())
    graph = "saved_model.pb"
    assert directory.is_relative_to(tmp_path / ".cache" / "kagglehub")
    assert (directory / graph).read_bytes() == (tf1_module / graph).read_bytes()


def test_without_kagglehub_the_extra_to_install_is_named(proxy, tmp_path):
    done = fetched(proxy, tmp_path, HANDLE, "kagglehub")

    assert done.returncode == 1
    assert "pip install 'featurewire-exporter[kaggle]'" in done.stderr
    assert done.stderr.count("\n") == 1
