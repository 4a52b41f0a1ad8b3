"""Expensive fixtures that all tests share. They are created once per session."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.process import all_versions
from tests.support.shared import (
    SharedServer,
    folder_of_the_run,
    once_for_all_workers,
    server_for_all_workers,
)
from tests.support.stand_in import StandIn

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# A shell starts a background job with SIGINT ignored, and nohup ignores SIGHUP. Programs that tests
# interrupt would inherit that.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

pytest_plugins = ["tests.support.cpu_limit"]

# Hypothesis is not installed in the environment of the samples.
with contextlib.suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # Without deadlines, because examples are slow on a busy machine. Every run uses the same
    # examples, so that a failure is due to the change; `--hypothesis-profile=random` looks for new
    # ones.
    no_clock = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("random", no_clock)
    settings.register_profile("same", no_clock, derandomize=True)
    settings.load_profile("same")

SLOW_FIXTURES = {
    "learned_module",
    "oldest_python",
    "other_learned_module",
    "published",
    "stand_in_module",
}
"""The full-size network, modules with learned weights, a second TensorFlow."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses a slow fixture, directly or not, as `slow`."""
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """The repository's sample photos: real JPEGs."""
    return sorted((ROOT / "samples" / "photos").glob("*.jpg"))


@pytest.fixture(scope="session", autouse=True)
def fork_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let tests start programs in milliseconds: see `tests/support/warm.py`."""
    warm.use_fork_servers(folder_of_the_run(tmp_path_factory))
    yield
    warm.leave_fork_servers()


@pytest.fixture(scope="session")
def stand_in_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in itself: a module directory in TF1 Hub format."""
    code = "import sys; from featurewire_exporter.source.stand_in import write_stand_in as write"

    def make(folder: Path) -> None:
        warm.run(
            ["-c", f"{code}; from pathlib import Path; write(Path(sys.argv[1]))"]
            + [str(folder / "module")],
            check=True,
            timeout=250,
        )

    return once_for_all_workers(tmp_path_factory, "stand-in-module", make) / "module"


@pytest.fixture(scope="session")
def small_stand_in_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in with an eighth of the filters: 299x299 pixels to 192 floats, TF1 Hub format.

    It has all structures of the full-size one: Inception blocks of each kind, scaled residuals, a
    last block without activation, batch normalisation, biases.
    """
    code = (
        "import sys; from pathlib import Path\n"
        "from featurewire_exporter.source.network import Size\n"
        "from featurewire_exporter.source.stand_in import write_stand_in\n"
        "write_stand_in(Path(sys.argv[1]), size=Size(divisor=8, blocks=(1, 2, 1)))"
    )

    def make(folder: Path) -> None:
        warm.run(["-c", code, str(folder / "module")], check=True, timeout=250)

    return once_for_all_workers(tmp_path_factory, "small-stand-in-module", make) / "module"


@pytest.fixture(scope="session")
def small_published(tmp_path_factory: pytest.TempPathFactory, small_stand_in_module: Path) -> Path:
    """The small stand-in, exported: a base path with version 1 in it."""

    def make(folder: Path) -> None:
        export = ["-m", "featurewire_exporter", "export"]
        export += [str(small_stand_in_module), str(folder / "small")]
        warm.run(export, check=True, capture_output=True, text=True, timeout=250)

    return once_for_all_workers(tmp_path_factory, "small-published", make) / "small"


@pytest.fixture(scope="session", params=["small", pytest.param("full", marks=pytest.mark.slow)])
def stand_in(request: pytest.FixtureRequest) -> StandIn:
    """The small stand-in and, in the slow set, the full-size one."""
    if request.param == "small":
        module, base = "small_stand_in_module", "small_published"
        dimension, convolutions = 192, 51
    else:
        module, base = "stand_in_module", "published"
        dimension, convolutions = 1536, 244
    return StandIn(
        module=request.getfixturevalue(module),
        base_path=request.getfixturevalue(base),
        dimension=dimension,
        convolutions=convolutions,
    )


@pytest.fixture(scope="session")
def learned_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0: 224x224 pixels to 1280 floats that mean something."""
    return _learned(tmp_path_factory, "lite0")


@pytest.fixture(scope="session")
def other_learned_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite1: 240x240 pixels to 1280 floats of another vector space."""
    return _learned(tmp_path_factory, "lite1")


def _learned(factory: pytest.TempPathFactory, name: str) -> Path:
    from tests.support.learned import write_learned_module

    return (
        once_for_all_workers(
            factory, name, lambda folder: write_learned_module(folder / "module", name)
        )
        / "module"
    )


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-size stand-in, exported: a base path with version 1 in it."""

    def make(folder: Path) -> None:
        warm.run(
            ["-m", "featurewire_exporter", "export", "stand-in"] + [folder / "inception_resnet_v2"],
            check=True,
            capture_output=True,
            text=True,
            timeout=280,
        )

    return once_for_all_workers(tmp_path_factory, "published", make) / "inception_resnet_v2"


@pytest.fixture(scope="session")
def published_manifest(published: Path) -> dict:
    return json.loads((published / "1" / "assets.extra" / "featurewire.json").read_text())


@pytest.fixture(scope="session")
def tiny_server(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[SharedServer]:
    """`featurewire serve` with versions 1 and 2 of the model `tiny`, shared by all workers."""
    import featurewire

    def flags(folder: Path) -> list[str]:
        return [f"--model_config_file={all_versions(folder, 'tiny', tiny_model)}"]

    with server_for_all_workers(tmp_path_factory, "tiny", flags) as server:
        with featurewire.Client(server.target, model="tiny", version=1) as client:
            client.wait_until_ready(60)
            client.with_options(version=2).wait_until_ready(60)
        yield server


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base path with versions 1 and 2 of a tiny model (see tests/support/models.py).

    All workers share it: copy it to change it.
    """
    code = (
        "import sys; from pathlib import Path; from tests.support.models import write_tiny_model\n"
        "for version in (1, 2): write_tiny_model(Path(sys.argv[1]), version)"
    )

    def make(folder: Path) -> None:
        warm.run(["-c", code, str(folder / "tiny")], check=True, timeout=250, cwd=ROOT)

    return once_for_all_workers(tmp_path_factory, "tiny", make) / "tiny"
