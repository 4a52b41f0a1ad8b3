"""An index that is embedded again while it is searched and written to: killed, then switched."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

WHY = "needs the samples' own packages: run `make test-samples`"
pytest.importorskip("faiss", reason=WHY)
pytest.importorskip("lancedb", reason=WHY)

import featurewire  # noqa: E402
from tests.samples.conftest import ROOT, SAMPLES, Server, in_project, python_of_the_server  # noqa: E402
from tests.support.process import free_port  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

FOLDER = SAMPLES / "reindex"
sys.path.insert(0, str(FOLDER))

from reindex import add, find, open_index  # noqa: E402
from tables import Index, WrongSpaceError  # noqa: E402

OLD, NEW = "turned-1", "turned-2"
ROWS = 3000
"""Of the test that kills: so many that no run ends before it is killed."""
FEW = 1200
TIMEOUT = 90.0


class Replica(Server):
    """One of two that read one config."""

    def label(self, stable: int) -> None:
        text = f"""model_config_list {{
          config {{ name: "turned" base_path: "{self.folder / "turned"}"
            model_platform: "tensorflow"
            model_version_policy {{ specific {{ versions: 1 }} }}
            version_labels {{ key: "stable" value: {stable} }}
            version_labels {{ key: "canary" value: {stable} }} }} }}"""
        (self.folder / "models.config").write_text(text)


@pytest.fixture
def replicas(turned: Path, tmp_path: Path) -> Iterator[list[Replica]]:
    """Both serve version 1 as `stable`; version 2, with a bridge, is there to be rolled out."""
    (tmp_path / "turned").symlink_to(turned / "turned")
    made = [Replica(tmp_path, free_port()) for _ in range(2)]
    made[0].label(stable=1)
    try:
        yield [each.start() for each in made]
    finally:
        for each in made:
            each.stop()


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    in_project(
        "-c",
        "import sys; from pathlib import Path\n"
        "from tests.support.models import write_turned_model\n"
        "write_turned_model(Path(sys.argv[1]), 1)\n"
        "write_turned_model(Path(sys.argv[1]), 2, bridge_to=1)\n",
        str(folder / "turned"),
    )
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def write_image(folder: Path, number: int) -> str:
    name = f"{number:05}.jpg"
    (folder / name).write_bytes(b"\xff\xd8\xff" + number.to_bytes(4, "big"))
    return name


def rollout(replicas: list[Replica], *step: str) -> None:
    servers = [f"--server={each.target}" for each in replicas]
    config = f"--config={replicas[0].folder / 'models.config'}"
    done = subprocess.run(
        [Path(python_of_the_server()).with_name("featurewire"),
         "rollout", *step, config, *servers, "--model=turned"],
        capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def start(kind: str, index: Path, images: Path, target: str) -> subprocess.Popen[str]:
    where = ("--images", str(images), "--server", target, "--model", "turned")
    return subprocess.Popen(
        [sys.executable, "reindex.py", f"{kind}:{index}", *where],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def kill_at_random(
    kind: str, folder: Path, images: Path, target: str, times: int, seed: int = 0
) -> None:
    """Run it and kill it so often, each time some rows further."""
    chance, index = random.Random(seed), open_index(f"{kind}:{folder}")
    for _ in range(times):
        at = len(index.names(NEW)) + chance.randrange(1, 100)
        process = start(kind, folder, images, target)
        wait_until(lambda at=at: len(index.names(NEW)) >= at, TIMEOUT)
        assert process.poll() is None, process.communicate()[0]
        process.kill()
        process.communicate(timeout=TIMEOUT)


def finish(kind: str, folder: Path, images: Path, target: str) -> str:
    process = start(kind, folder, images, target)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    return output


class Traffic:
    """A writer and some searches, until the end; each looks at what it got."""

    def __init__(self, index: Callable[[], Index], target: str, images: Path, known: int) -> None:
        self.failures: list[str] = []
        self.found = self.lost = 0
        self.bridged: set[bool] = set()
        self.written = known
        self._index, self._target, self._images = index, target, images
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(self._write,))]
        self._threads += [threading.Thread(target=self._run, args=(self._search,)) for _ in "ab"]

    def _run(self, work: Callable[[Index, featurewire.Client], None]) -> None:
        with featurewire.Client(self._target, model="turned", label="stable") as client:
            index = self._index()
            while not self._stop.is_set():
                try:
                    work(index, client)
                except Exception as error:  # whatever it is, it is one failed request
                    self.failures.append(f"{type(error).__name__}: {error}")

    def _write(self, index: Index, client: featurewire.Client) -> None:
        names = [write_image(self._images, self.written + step) for step in range(2)]
        assert add(index, client, self._images, names) == {}
        self.written += len(names)
        self._stop.wait(0.05)

    def _search(self, index: Index, client: featurewire.Client) -> None:
        name = f"{random.randrange(self.written):05}.jpg"
        image = (self._images / name).read_bytes()
        best = find(index, client, image, 1)
        self.found += 1
        self.lost += best[0][0] != name

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT)


def check_rows(
    index: Index, space: str, images: Path, client: featurewire.Client, every: int = 1
) -> None:
    """Every image once, and its row (of so many one) is the image's vector in that space."""
    names = index.names(space)
    assert sorted(names) == sorted(set(names))
    native = client.with_options(vector_space=space)
    for result in native.stream((name, images / name) for name in names[::every]):
        name, cosine = index.nearest(space, result.unwrap().vector, 1)[0]
        assert (name, cosine > 0.9999) == (result.key, True)


@pytest.mark.parametrize("kind", ["lance", "faiss"])
def test_kill_9_ten_times_at_random_loses_nothing_and_writes_nothing_twice(
    kind, replicas, images, tmp_path
):
    target, folder = ",".join(each.target for each in replicas), tmp_path / "index"
    index = open_index(f"{kind}:{folder}")
    names = [write_image(images, number) for number in range(ROWS)]
    with featurewire.Client(target, model="turned", label="stable") as client:
        assert add(index, client, images, names) == {}
        rollout(replicas, "start", "--version=2")
        rollout(replicas, "promote", "--accept-bridge")
        kill_at_random(kind, folder, images, target, times=10)
        assert index.current() == OLD
        with pytest.raises(WrongSpaceError, match="no search reads the vectors of turned-2 yet"):
            index.search(NEW, np.ones(16, np.float32), 1)
        with pytest.raises(WrongSpaceError, match="searches read turned-1"):
            index.add(NEW, ["a"], np.ones((1, 16), np.float32))
        assert f"searches read {NEW}: {ROWS} rows" in finish(kind, folder, images, target)
        assert index.current() == NEW
        assert sorted(index.names(NEW)) == names
        check_rows(index, NEW, images, client, every=10)
        assert "already" in finish(kind, folder, images, target)


@pytest.mark.parametrize("kind", ["lance", "faiss"])
def test_a_change_of_model_under_load_fails_no_request_and_mixes_no_spaces(
    kind, replicas, images, tmp_path
):
    """Two replicas, a writer, readers: rollout with a bridge, backfill, switch, retirement."""
    target, folder = ",".join(each.target for each in replicas), tmp_path / "index"
    index = open_index(f"{kind}:{folder}")
    names = [write_image(images, number) for number in range(FEW)]
    with featurewire.Client(target, model="turned", label="stable") as client:
        assert add(index, client, images, names) == {}
        with Traffic(lambda: open_index(f"{kind}:{folder}"), target, images, FEW) as traffic:

            def goes_on() -> None:
                found, written = traffic.found + 20, traffic.written + 4
                wait_until(lambda: traffic.found >= found and traffic.written >= written, TIMEOUT)

            goes_on()
            rollout(replicas, "start", "--version=2")
            rollout(replicas, "promote", "--accept-bridge")
            goes_on()
            assert client.with_options(vector_space=OLD).embed(b"\xff\xd8\xff").bridged
            kill_at_random(kind, folder, images, target, times=2)
            goes_on()
            assert index.current() == OLD
            finish(kind, folder, images, target)
            goes_on()
            rollout(replicas, "retire")
            goes_on()
        assert traffic.failures == []
        assert (traffic.lost, traffic.found > 100) == (0, True)
        assert index.current() == NEW
        # What was written until the switch is in both tables, what came later in the new one.
        written = [f"{number:05}.jpg" for number in range(traffic.written)]
        assert sorted(index.names(NEW)) == written
        assert set(index.names(OLD)) < set(written)
        for space in (OLD, NEW):
            check_rows(index, space, images, client)
