"""Commands look up only configured names, and write nothing to the home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from featurewire import Client
from tests.support.process import ServerProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow  # new interpreters throughout

SOURCE = Path(__file__).parent.parent / "support" / "outside.c"
LOCAL = {"name -", "name localhost", "name 127.0.0.1", "name ::", "name ::1", "name 0.0.0.0"}


@dataclass(frozen=True)
class Watch:
    """Records the DNS lookups and the home folder of processes started with `environment`."""

    environment: dict[str, str]
    log: Path
    home: Path

    def looked_up(self) -> set[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return set(lines) - LOCAL

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("featurewire"), *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("outside") / "outside.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", made, SOURCE, "-ldl"], check=True)
    return made


@pytest.fixture
def watch(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    for name in ("KERAS_HOME", "TF_CPP_MIN_LOG_LEVEL", "CI", "TFHUB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)  # users do not set these
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {
        "HOME": str(home),
        "LD_PRELOAD": str(library),
        "OUTSIDE_LOG": str(tmp_path / "outside.log"),
    }
    return Watch(environment, tmp_path / "outside.log", home)


def test_the_watch_sees_what_phones_home(watch: Watch) -> None:
    code = "import socket; socket.getaddrinfo('statistics.invalid', 443)"
    subprocess.run([sys.executable, "-c", code], env=watch.environment, stderr=subprocess.PIPE)
    assert watch.looked_up() == {"name statistics.invalid"}


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
def test_a_server_says_only_what_is_its_own(watch: Watch, tmp_path: Path, engine: str) -> None:
    from tests.server.split_model import write_split_model

    first = write_split_model(tmp_path / "model")
    photo = next((SOURCE.parents[2] / "samples" / "photos").glob("*.jpg"))
    log = tmp_path / "server.log"
    server = ServerProcess(
        "--model_name=m",
        f"--model_base_path={tmp_path / 'model'}",
        f"--engine={engine}",
        log=log,
        environment=watch.environment,
    )
    server.start()
    try:
        output = tmp_path / "vectors.npy"
        ended = watch.run(
            *("embed", photo, "--model", "m"),
            *("--server", server.target, "--output", output),
        )
        assert ended.returncode == 0, ended.stderr
        first.rename(first.with_name("2"))  # loads next to the first one, in a second process
        with Client(server.target, model="m") as client:
            wait_until(lambda: client.embed(photo).version == 2)
    finally:
        assert server.stop() == 0
    assert watch.looked_up() == set()
    assert [*watch.home.rglob("*")] == []
    foreign = [line for line in log.read_text().splitlines() if " featurewire_server." not in line]
    assert foreign == []  # neither absl nor CUDA


def test_an_export_looks_nothing_up(watch: Watch, tmp_path: Path) -> None:
    from tests.exporter.modules import write_tf2_module

    module = write_tf2_module(tmp_path / "module")
    ended = watch.run("export", module, tmp_path / "model")
    assert ended.returncode == 0, ended.stderr
    assert watch.looked_up() == set()
    assert [*watch.home.rglob("*")] == []
