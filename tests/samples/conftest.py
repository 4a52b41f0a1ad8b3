"""Servers and photos for the samples: one model with learned weights, one with two spaces."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import ServerProcess
from tests.support.project import ROOT, in_project, project_python

SAMPLES = ROOT / "samples"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Jobs of Ray and Beam, indexes and browsers are slow."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


class Server(ServerProcess):
    """`featurewire serve` with the models `lite0` (version 1) and `tiny` (1, 2, 3).

    Version 3 of `tiny` has a bridge to 1.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"--model_config_file={folder / 'models.config'}",
            "--model_config_file_poll_wait_seconds=1",
            "--allow_version_labels_for_unavailable_models",
            "--enable_batching",
            "--enable_per_model_batching_parameters",
            "--engine=tensorflow",
            log=folder / "server.log",
            python=project_python(),
        )
        self.folder = folder

    def label(self, stable: int) -> None:
        """Point the label `stable` of `tiny` to a version, like a rollout."""
        text = f"""model_config_list {{
          config {{ name: "lite0" base_path: "{self.folder / "lite0"}"
            model_platform: "tensorflow" }}
          config {{ name: "tiny" base_path: "{self.folder / "tiny"}" model_platform: "tensorflow"
            model_version_policy {{ specific {{ versions: 1 versions: 2 versions: 3 }} }}
            version_labels {{ key: "stable" value: {stable} }}
            version_labels {{ key: "canary" value: 2 }} }} }}"""
        draft = self.folder / "models.config.draft"
        draft.write_text(text)
        draft.rename(self.folder / "models.config")


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
        "for version in (1, 2): write_tiny_model(folder / 'tiny', version)\n"
        "write_tiny_model(folder / 'tiny', 3, bridge_to=1)\n",
        str(folder),
    )
    in_project(
        *("-m", "featurewire_exporter", "export", str(folder / "module"), str(folder / "lite0")),
        *("--max-batch-size", "8"),
    )
    return folder


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Server]:
    server = Server(models)
    server.label(stable=1)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def tiles(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty crops of the sample photos in two folders, and a file that is not a photo."""
    from tests.support.pictures import write_tiles

    folder = write_tiles(photos, tmp_path_factory.mktemp("tiles"), 60)
    (folder / "more").mkdir()
    for path in sorted(folder.glob("*.jpg"))[:10]:
        path.rename(folder / "more" / f"it's {path.name}")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff but no photo")
    return folder


@pytest.fixture
def some_photos(photos: list[Path], tmp_path: Path) -> Path:
    """A writable folder with the sample photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in photos:
        shutil.copy(photo, folder)
    return folder
