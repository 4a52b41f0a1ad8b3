"""A server process with the small or full-size stand-in, and a client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shared import SharedServer, server_for_all_workers
from tests.support.stand_in import StandIn

ROOT = Path(__file__).resolve().parents[2]
MODEL = "inception_resnet_v2"


@pytest.fixture(scope="session")
def service(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    """`featurewire serve` with batching, as in the Compose stack."""
    flags = [
        f"--model_name={MODEL}",
        f"--model_base_path={stand_in.base_path}",
        "--enable_batching",
        f"--batching_parameters_file={ROOT / 'serving_config' / 'batching.config'}",
    ]
    name = f"stand-in-{stand_in.dimension}"
    with server_for_all_workers(tmp_path_factory, name, lambda _folder: flags) as server:
        yield server


@pytest.fixture(scope="session")
def client(service: SharedServer) -> Iterator[object]:
    import featurewire

    with featurewire.Client(service.target, model=MODEL) as client:
        client.wait_until_ready(180)
        yield client
