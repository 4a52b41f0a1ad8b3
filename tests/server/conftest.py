"""Models and servers shared by the server's tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurewire_server.transport import grpc_server
from tests.server.endpoints import Endpoints, open_endpoints
from tests.server.support import Stub, config, model, served
from tests.support.shared import once_for_all_workers
from tests.support.waiting import wait_until


@pytest.fixture(scope="session", autouse=True)
def short_stop() -> Iterator[None]:
    """Stop servers of this process at once: their callers have read every answer by then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpc_server, "FLUSH_SECONDS", 0.05)
        yield


@pytest.fixture(scope="session")
def split_base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 as the exporter makes it, around a small network: see `split_model.py`.

    All workers share it: copy it to change it.
    """
    from tests.server.split_model import write_split_model

    def make(folder: Path) -> None:
        write_split_model(folder)

    return once_for_all_workers(tmp_path_factory, "split-model", make)


@pytest.fixture
def split_version(split_base_path: Path, tmp_path: Path) -> Path:
    """A copy of that version, to be changed: `tmp_path/1`."""
    return Path(shutil.copytree(split_base_path / "1", tmp_path / "1"))


@pytest.fixture(scope="session")
def tiny(tiny_model: Path) -> Iterator[Stub]:
    """Versions 1 and 2 of the tiny model, in a server of this process; do not reconfigure it."""
    policy = "model_version_policy { all {} }"
    label = "version_labels { key: 'stable' value: 1 }"
    with served(config(model("tiny", tiny_model))) as stub:
        stub.reload(config(model("tiny", tiny_model, policy)))
        wait_until(lambda: stub.states() == {2: "AVAILABLE", 1: "AVAILABLE"})
        # Only an AVAILABLE version can get a label.
        stub.reload(config(model("tiny", tiny_model, f"{policy} {label}")))
        yield stub


@pytest.fixture(scope="session")
def endpoints(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """A process with every protocol open; see `open_endpoints`."""
    with open_endpoints(tiny_model, tmp_path_factory.mktemp("endpoints")) as made:
        yield made
