"""A rollout that is interrupted, or fails unexpectedly, rolls itself back."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurewire_rollout import ConflictError
from featurewire_rollout.check import CheckConfig, Thresholds
from featurewire_rollout.fleet import converge
from featurewire_rollout.steps.watch import WatchConfig
from tests.rollout.stack import Stack
from tests.support import warm

BACK = [{"stable": 1, "canary": 1}] * 2
LIMITS = ("--max-latency-ratio=1000", "--no-crops")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("interrupt"), tiny_model)
    with made.running():
        yield made


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    draw = random.Random(0)
    for number in range(80):
        (folder / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" + draw.randbytes(20))
    return folder


def run(stack: Stack, version: int, images: Path) -> subprocess.Popen | warm.WarmProcess:
    servers = [f"--server={server.target}" for server in stack.servers]
    return warm.start(
        [str(Path(sys.executable).with_name("featurewire")), "rollout", "run", *servers, *LIMITS]
        + ["--config", str(stack.config), "--model", "tiny", "--version", str(version)]
        + ["--images", str(images), "--watch", "600", "--no-memory-check"],
        imports=warm.CLIENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("version", "line", "sent", "status"),
    [
        (2, "loading version 2", signal.SIGINT, 130),
        (3, "check: stable and canary", signal.SIGTERM, 143),
        (4, "watching stable and previous", signal.SIGTERM, 143),
    ],
)
def test_an_interrupted_run_is_rolled_back(
    stack: Stack, images: Path, version: int, line: str, sent: signal.Signals, status: int
) -> None:
    stack.publish(version, source=1)
    process = run(stack, version, images)
    assert process.stderr is not None
    said = []
    for text in process.stderr:
        said.append(text)
        if text.startswith(line):
            with stack.rollout() as rollout, pytest.raises(ConflictError, match="run of tiny"):
                rollout.retire()
            process.send_signal(sent)
            break
    out, rest = process.communicate(timeout=120)
    assert process.returncode == status, (said, rest)
    assert out == ""
    assert "interrupted" in rest
    assert "Traceback" not in rest
    with stack.rollout() as rollout:
        after = rollout.status()
        assert after.phase.name in ("at rest", "none")
        assert after.fleet.available_everywhere() == {1}
        assert after.entry is not None
        for replica in after.fleet.replicas:
            assert replica.labels == after.entry.labels


@pytest.mark.slow
def test_what_nobody_foresaw_rolls_back(
    stack: Stack, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converge, "POLL_SECONDS", 0.02)
    stack.publish(9, source=1)

    def full(_report: object) -> None:
        raise OSError(28, "No space left on device")

    limits = Thresholds(min_rank_correlation=-1.0, max_latency_ratio=1000.0)
    config = CheckConfig(thresholds=limits, crops=False)
    with stack.rollout() as rollout:
        with pytest.raises(OSError, match="No space"):
            rollout.run(
                9, images, watch=WatchConfig(seconds=0.1), judged=full, check=config,
            )  # fmt: skip
        assert rollout.status().fleet.available_everywhere() == {1}
    assert stack.labels() == BACK
    # The same with images that are deleted before the watch has read them.
    copy = stack.base.parent / "images"
    shutil.copytree(images, copy)
    with stack.rollout() as rollout:
        with pytest.raises(Exception, match="images"):
            rollout.run(
                9, copy, watch=WatchConfig(seconds=0.1), check=config,
                judged=lambda _report: shutil.rmtree(copy),
            )  # fmt: skip
        assert rollout.status().fleet.available_everywhere() == {1}
    assert stack.labels() == BACK
