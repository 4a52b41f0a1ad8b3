"""A server with learned weights and one with two vector spaces, for the samples.

The samples have requirements of their own, so their tests run in an environment of their own
(`make test-samples`). The server runs in the project's, as another machine's would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.process import STOP_TIMEOUT, free_port, wait_for_port

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"
READY_TIMEOUT = 120.0


def python_of_the_server() -> str:
    """An interpreter that has the exporter and the server."""
    project = ROOT / ".venv" / "bin" / "python"
    return str(project) if project.exists() else sys.executable


def in_project(*arguments: str) -> None:
    """Run the project's Python; its output is shown when it fails."""
    done = subprocess.run(
        [python_of_the_server(), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Server:
    """`featurewire serve` with the models `lite0` (version 1) and `tiny` (1 and 2)."""

    folder: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def label(self, stable: int) -> None:
        """Point `stable` of `tiny` to a version, as a rollout does."""
        text = f"""model_config_list {{
          config {{ name: "lite0" base_path: "{self.folder / "lite0"}"
            model_platform: "tensorflow" }}
          config {{ name: "tiny" base_path: "{self.folder / "tiny"}" model_platform: "tensorflow"
            model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
            version_labels {{ key: "stable" value: {stable} }}
            version_labels {{ key: "canary" value: 2 }} }} }}"""
        draft = self.folder / "models.config.draft"
        draft.write_text(text)
        draft.rename(self.folder / "models.config")

    def start(self) -> Server:
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(python_of_the_server(), "-m", "featurewire_server", f"--port={self.port}"),
                    f"--model_config_file={self.folder / 'models.config'}",
                    "--model_config_file_poll_wait_seconds=1",
                    "--allow_version_labels_for_unavailable_models",
                    "--enable_batching",
                    "--enable_per_model_batching_parameters",
                    "--engine=tensorflow",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
            )
        wait_for_port(self.port, self.process, READY_TIMEOUT)
        return self

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(STOP_TIMEOUT)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base paths `lite0` and `tiny`."""
    folder = tmp_path_factory.mktemp("models")
    in_project(
        "-c",
        "import sys; from pathlib import Path; folder = Path(sys.argv[1])\n"
        "from tests.support.learned import write_learned_module\n"
        "from tests.support.models import write_tiny_model\n"
        "write_learned_module(folder / 'module')\n"
        "for version in (1, 2): write_tiny_model(folder / 'tiny', version)\n",
        str(folder),
    )
    in_project(
        *("-m", "featurewire_exporter", "export", str(folder / "module"), str(folder / "lite0")),
        *("--max-batch-size", "8"),
    )
    return folder


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Server]:
    server = Server(models, free_port())
    server.label(stable=1)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def tiles(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty parts of the sample photos in two folders, and a file that is no photo."""
    from tests.support.pictures import write_tiles

    folder = write_tiles(photos, tmp_path_factory.mktemp("tiles"), 60)
    (folder / "more").mkdir()
    for path in sorted(folder.glob("*.jpg"))[:10]:
        path.rename(folder / "more" / f"it's {path.name}")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff but no photo")
    return folder


@pytest.fixture
def some_photos(photos: list[Path], tmp_path: Path) -> Path:
    """A folder of one's own with the sample photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in photos:
        shutil.copy(photo, folder)
    return folder
