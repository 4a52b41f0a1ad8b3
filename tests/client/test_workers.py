"""The recipes of docs/client.md for web servers and workers, in real processes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.client.misbehaving import Misbehaving, image, reply_to, vector_of
from tests.client.test_recipes import examples
from tests.support.process import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@pytest.fixture
def server():
    with Misbehaving() as server:
        yield server


def recipe(heading: str, server: Misbehaving, position: int = 0) -> str:
    """An example of the page, with this server's address."""
    text = examples(heading)[position]
    assert '"localhost:8500"' in text
    return text.replace("localhost:8500", server.target)


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Path]:
    """Run `python -m ARGUMENTS` in this folder; yields the file with its output."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder, stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            yield log
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def post(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an answer, or (0, b"") if there is no server."""
    try:
        with urllib.request.urlopen(url, data, timeout=30) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


@contextlib.contextmanager
def gunicorn(folder: Path) -> Iterator[tuple[str, Path]]:
    port = free_port()
    options = ["--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    with running(folder, "gunicorn", *options, "app:app") as log:
        yield f"http://127.0.0.1:{port}/", log


@needs("gunicorn")
def test_gunicorn_preloads_a_client_that_was_not_used(server, tmp_path):
    (tmp_path / "app.py").write_text(recipe("gunicorn and uWSGI", server))
    with gunicorn(tmp_path) as (url, log):
        status, body = wait_until(lambda: (got := post(url, image(7)))[0] and got)
        assert status == 200, log.read_text()[-2000:]
        assert np.array_equal(np.frombuffer(body, "<f4"), vector_of(image(7)))


@needs("gunicorn")
@pytest.mark.parametrize("hook", [True, False], ids=["with post_fork", "without"])
def test_gunicorn_gives_workers_clients_of_their_own(server, tmp_path, hook):
    used = recipe("gunicorn and uWSGI", server) + "\nclient.wait_until_ready(20)\n"
    (tmp_path / "app.py").write_text(used)
    if hook:
        conf = recipe("gunicorn and uWSGI", server, position=1)
        (tmp_path / "gunicorn.conf.py").write_text(conf)
    with gunicorn(tmp_path) as (url, log):
        status, body = wait_until(lambda: (got := post(url, image(7)))[0] and got)
        if hook:
            assert status == 200, log.read_text()[-2000:]
            assert np.array_equal(np.frombuffer(body, "<f4"), vector_of(image(7)))
        else:
            assert status == 500
            assert "gunicorn's post_fork" in log.read_text()


@needs("fastapi", "uvicorn")
def test_fastapi_embeds_and_tells_whether_it_is_ready(server, tmp_path):
    (tmp_path / "app.py").write_text(recipe("FastAPI", server))
    port = free_port()
    with running(tmp_path, "uvicorn", "app:app", "--port", str(port)) as log:
        url = f"http://127.0.0.1:{port}"
        status, _ = wait_until(lambda: (got := post(f"{url}/ready"))[0] and got)
        assert status == 200, log.read_text()[-2000:]
        status, body = post(f"{url}/vector", image(7))
        answer = json.loads(body)
        assert (status, answer["version"]) == (200, 1)
        assert np.allclose(answer["vector"], vector_of(image(7)))
        server.states = [(1, 20)]
        assert post(f"{url}/ready")[0] == 503


@needs("gevent")
def test_gevent_greenlets_wait_at_the_same_time(tmp_path):
    everybody, opened = threading.Barrier(8), threading.Event()

    def all_at_once(images, _context):
        """The first eight calls are answered only when all of them have arrived."""
        if not opened.is_set():
            everybody.wait(20)
            opened.set()
        return reply_to(images)

    with Misbehaving(all_at_once) as server:
        code = (
            recipe("gevent", server)
            + """
import gevent
jobs = [gevent.spawn(client.embed, bytes.fromhex("ffd8ff000000%02x" % n)) for n in range(8)]
gevent.joinall(jobs, timeout=60, raise_error=True)
print([float(job.value.vector[0]) for job in jobs])
print(sum(1 for result in client.stream(bytes.fromhex("ffd8ff00000001") for _ in range(96))))
client.close()
"""
        )
        (tmp_path / "app.py").write_text(code)
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=tmp_path, timeout=120, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        vectors, streamed = done.stdout.splitlines()
        assert json.loads(vectors) == pytest.approx([n + 0.1 for n in range(8)])
        assert streamed == "96"


@pytest.mark.slow
@needs("celery")
def test_celery_workers_make_their_clients(server, tmp_path):
    for name in ("queue", "results"):
        (tmp_path / name).mkdir()
    redis = '"redis://localhost"'
    code = recipe("Celery", server).replace(f"broker={redis}", 'broker="filesystem://"')
    code = code.replace(f"backend={redis}", f'backend="file://{tmp_path}/results"')
    folders = {f"data_folder_{way}": f"{tmp_path}/queue" for way in ("in", "out")}
    folders |= {"control_folder": f"{tmp_path}/queue"}
    (tmp_path / "tasks.py").write_text(f"{code}\napp.conf.broker_transport_options = {folders}\n")
    (tmp_path / "photo.jpg").write_bytes(image(7))
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    send = f"from tasks import embed; print(embed.delay({str(tmp_path / 'photo.jpg')!r}).get(60))"
    with running(tmp_path, "celery", "-A", "tasks", "worker", "-c", "2", *quiet) as log:
        done = subprocess.run(
            [sys.executable, "-c", send], cwd=tmp_path, timeout=120, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-1500:] + log.read_text()[-1500:]
    assert np.allclose(json.loads(done.stdout), vector_of(image(7)))
