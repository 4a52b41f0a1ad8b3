"""One server process with the stand-in, small or full-size, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import ServerProcess, serving
from tests.support.stand_in import StandIn

MODEL = "inception_resnet_v2"


@pytest.fixture(scope="session")
def service(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """`featurewire serve` with batching, as the Compose stack starts it."""
    root = Path(__file__).resolve().parents[2]
    with serving(
        stand_in.base_path,
        "--enable_batching",
        f"--batching_parameters_file={root / 'serving_config' / 'batching.config'}",
        log=tmp_path_factory.mktemp("service") / "server.log",
        model=MODEL,
    ) as server:
        yield server


@pytest.fixture(scope="session")
def client(service: ServerProcess) -> Iterator[object]:
    import featurewire

    with featurewire.Client(service.target, model=MODEL) as client:
        client.wait_until_ready(180)
        yield client
