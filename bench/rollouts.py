"""Rollouts under load on real servers: what callers notice, and what stays behind.

Callers ask without a pause: single images from `stable`, from the newest version, and a stream. A
call that fails once counts as failed, there are no retries; only where replicas are killed do the
clients have their usual ones. Each vector's version must have been AVAILABLE at the time. A sample
of the vectors is computed again in this process from the version that they name.

    full       start, check, promote, rollback, promote and retire with the full network
    many       rollouts on end, from 1 to 2 and back; memory and descriptors before and after
    restarts   three replicas, of which a random one is killed and started again throughout

    python -m bench.rollouts [full] [many] [restarts] [--rollouts N] [--network full|small]
                             [--first DIR --second DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from bench._photos import SAMPLES
from bench._published import BATCHING
from bench._serving_load import jpegs
from bench.load_beside import publish
from bench.machine import describe, print_table, resident
from featurewire import Client, RetryConfig
from featurewire_rollout import Rollout, RolloutConfig
from featurewire_rollout.check import Thresholds
from tests.support.callers import Answer, Callers, Onlooker
from tests.support.pictures import write_tiles
from tests.support.process import ServerProcess

MODEL = "network"
PARTS = ("full", "many", "restarts")
SAMPLE = 24
"""Vectors that are computed again."""
ROLLBACK_SECONDS = 5.0
GROWTH = 0.05
TIMEOUT = 400.0
CONFIG = """model_config_list {{
  config {{
    name: "{model}"
    base_path: "{base}"
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 }} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "canary" value: 1 }}
  }}
}}
"""


@dataclass
class Figures:
    """What one part found."""

    part: str
    rollouts: int = 0
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    astray: int = 0
    """Vectors of a version that was not AVAILABLE."""
    rollbacks: list[float] = field(default_factory=list)
    growth: str = ""
    files: str = ""
    again: str = ""

    def row(self) -> list[object]:
        longest = max(each.received - each.sent for each in self.answers)
        rollback = f"{max(self.rollbacks):.1f}" if self.rollbacks else ""
        return [self.part, self.rollouts, f"{self.seconds:.0f}", len(self.answers)] + [
            len(self.failures),
            self.astray,
            f"{longest:.1f}",
            rollback,
            self.growth,
            self.files,
            self.again,
        ]


HEADER = ["part", "rollouts", "s", "vectors", "failed", "not AVAILABLE", "longest s"]
HEADER += ["rollback s", "memory", "files", "computed again"]


class Session:
    """Replicas, callers and an onlooker. A context manager; the figures are whole after it."""

    def __init__(
        self,
        part: str,
        versions: dict[int, Path],
        folder: Path,
        *,
        replicas: int = 1,
        retry: RetryConfig = RetryConfig(max_attempts=1),  # noqa: B008
    ) -> None:
        self.figures = Figures(part)
        self._versions = versions
        base = folder / MODEL
        base.mkdir(parents=True)
        for version, source in versions.items():
            publish(source, base, version)
        self.config = folder / "models.config"
        self.config.write_text(CONFIG.format(model=MODEL, base=base))
        flags = (
            f"--model_config_file={self.config}",
            "--allow_version_labels_for_unavailable_models",
            "--engine=openvino",
            "--enable_batching",
            f"--batching_parameters_file={BATCHING}",
            "--max_num_load_retries=0",
        )
        self.servers = [ServerProcess(*flags, log=folder / f"{n}.log") for n in range(replicas)]
        self.targets = [each.target for each in self.servers]
        self._images = jpegs()
        self._retry = retry
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Session:
        for server in self.servers:
            server.start()
            self._stack.callback(server.stop)
        for target in self.targets:
            with Client(target, model=MODEL, label="stable") as client:
                client.wait_until_ready(TIMEOUT)
        self.rollout = self._stack.enter_context(
            Rollout(
                RolloutConfig(
                    servers=self.targets,
                    model=MODEL,
                    config=str(self.config),
                    timeout=TIMEOUT,
                    memory_check=False,
                ),
                say=self._say,
            )
        )
        self.onlooker = self._stack.enter_context(Onlooker(self.targets, model=MODEL))
        self.callers = self._stack.enter_context(
            Callers(
                ",".join(self.targets),
                model=MODEL,
                images=self._images,
                keep_every=7,
                retry=self._retry,
                timeout=120.0,
            )
        )
        self.callers.wait(30, timeout=TIMEOUT)
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        found = self.figures
        found.seconds = time.monotonic() - self._began
        self._stack.close()
        found.answers, found.failures = self.callers.answers, self.callers.failures
        found.astray = len(self.onlooker.not_available(found.answers))
        found.again = self._again()

    def _say(self, text: str) -> None:
        print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)

    def step(self, name: str, run: Callable[[], object]) -> None:
        began = time.monotonic()
        run()
        self._say(f"{name}: {time.monotonic() - began:.1f} s")

    def promote(self) -> None:
        # Vectors of two networks are of two spaces; that they are is not what this measures.
        self.step("promote", lambda: self.rollout.promote(accept_new_space=True))

    def rollback(self, to: int) -> None:
        began = time.monotonic()
        self.step("rollback", self.rollout.rollback)
        self.figures.rollbacks.append(self.onlooker.all_stable(to, since=began))
        self._say(f"stable is {to} on every replica after {self.figures.rollbacks[-1]:.2f} s")

    def through(self, version: int) -> None:
        """One rollout, from start to retire."""
        self.step(f"start {version}", lambda: self.rollout.start(version))
        self.callers.wait(5)
        self.promote()
        self.callers.wait(5, version=version)
        self.step("retire", self.rollout.retire)
        self.figures.rollouts += 1

    def memory(self) -> tuple[float, int]:
        """Resident bytes and open descriptors of all servers, once nothing is unloaded any more.

        The least of some seconds: what the requests in flight take comes and goes.
        """
        pids = [each.pid for each in self.servers]
        samples = []
        for _ in range(20):
            time.sleep(0.2)
            files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
            samples.append((sum(resident(pid) for pid in pids), files))
        return min(each for each, _ in samples), min(each for _, each in samples)

    def _again(self) -> str:
        """Compute a sample of the vectors again: the largest difference, by the vector's length.

        Beside it the smallest difference from what the other version makes of the same image.
        """
        kept = [each for each in self.figures.answers if each.vector is not None]
        chance = random.Random(0)
        sample = []
        for version in self._versions:
            own = [each for each in kept if each.version == version]
            sample += chance.sample(own, min(SAMPLE // 2, len(own)))
        differences: dict[bool, list[float]] = {True: [], False: []}
        for version, path in self._versions.items():
            made = _in_process(path)
            for answer in sample:
                vector = made(self._images[answer.image])
                difference = np.linalg.norm(vector - answer.vector) / np.linalg.norm(vector)
                differences[answer.version == version].append(float(difference))
        same, other = max(differences[True]), min(differences[False])
        return f"{len(sample)}: {same:.0e} ({other:.0e})"


def _in_process(path: Path) -> Callable[[bytes], np.ndarray]:
    from featurewire_server.engines.engine import EngineConfig
    from featurewire_server.engines.load import load_engine

    engine = load_engine(path, EngineConfig(engine="openvino"))

    @functools.cache
    def run(image: bytes) -> np.ndarray:
        images = np.array([image], object)
        return engine.run("serving_default", {"image_bytes": images}, ["features"])["features"][0]

    return run


def full(versions: dict[int, Path], folder: Path, options: argparse.Namespace) -> Figures:
    with Session("full", versions, folder, replicas=options.replicas) as session:
        images = write_tiles(sorted(SAMPLES.glob("*.jpg")), folder / "tiles", options.images)
        session.step("start", lambda: session.rollout.start(2))

        def check() -> None:
            # Beside a crowd a latency says nothing.
            limits = Thresholds(max_latency_ratio=1000.0)
            session._say(session.rollout.check(images, thresholds=limits).verdict.text)

        session.step(f"check with {options.images} images", check)
        session.promote()
        session.callers.wait(10, version=2, timeout=TIMEOUT)
        session.rollback(1)
        session.through(2)
    return session.figures


def many(versions: dict[int, Path], folder: Path, options: argparse.Namespace) -> Figures:
    with Session("many", versions, folder) as session:
        session.callers.wait(500, timeout=TIMEOUT)
        before = session.memory()
        for number in range(options.rollouts):
            session.through(1 + (number + 1) % 2)
            now = session.memory()
            session._say(f"{number + 1}: {now[0] / 1e6:.0f} MB, {now[1]} descriptors")
    session.figures.growth = f"{before[0] / 1e6:.0f} MB {now[0] / before[0] - 1:+.1%}"
    session.figures.files = f"{before[1]} {now[1] - before[1]:+d}"
    return session.figures


def restarts(versions: dict[int, Path], folder: Path, _options: argparse.Namespace) -> Figures:
    retry = RetryConfig()
    with Session("restarts", versions, folder, replicas=3, retry=retry) as session:
        with restarting(session.servers) as count:
            for version in (2, 1, 2):
                session.step(f"start {version}", partial(session.rollout.start, version))
                session.promote()
                session.rollback(3 - version)
                session.through(version)
        session._say(f"{count[0]} restarts")
        status = session.rollout.status()
        session._say(status.phase.text)
        for replica in status.fleet.replicas:
            session._say(f"{replica.address}: {sorted(replica.available)} {dict(replica.labels)}")
    session.figures.part = f"restarts ({count[0]})"
    return session.figures


@contextlib.contextmanager
def restarting(servers: list[ServerProcess], *, seed: int = 0) -> Iterator[list[int]]:
    """Kill a random server and start it again, again and again; yields the count so far."""
    stop, count, chance = threading.Event(), [0], random.Random(seed)

    def run() -> None:
        while not stop.wait(chance.uniform(1, 4)):
            server = chance.choice(servers)
            server.kill()
            stop.wait(chance.uniform(0, 1))
            server.start()
            with Client(server.target, model=MODEL, label="stable") as client:
                client.wait_until_ready(TIMEOUT)
            count[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()


def small(scratch: Path) -> dict[int, Path]:
    """EfficientNet-Lite0, and the same without one of its filters."""
    from tests.support.learned import write_learned_module

    return {
        version: _export(
            write_learned_module(scratch / f"module{version}", zero_filters=filters),
            scratch / "small",
            version,
        )
        for version, filters in ((1, ()), (2, (3,)))
    }


def stand_ins(scratch: Path) -> dict[int, Path]:
    """The full network with two sets of random weights."""
    from featurewire_exporter.stand_in import write_stand_in

    return {
        version: _export(
            write_stand_in(scratch / f"stand-in{version}", seed=version), scratch / "full", version
        )
        for version in (1, 2)
    }


def _export(module: Path, base: Path, version: int) -> Path:
    subprocess.run(
        [sys.executable, "-m", "featurewire_exporter", "export", str(module), str(base)]
        + ["--version", str(version)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return base / str(version)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rollouts", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    parser.add_argument("--rollouts", type=int, default=20, help="of `many`")
    parser.add_argument("--replicas", type=int, default=1, help="of `full`")
    parser.add_argument("--images", type=int, default=60, help="that `full` checks with")
    parser.add_argument("--network", choices=("small", "full"), default="small", help="of `many`")
    parser.add_argument("--first", type=Path, help="a published version of the full network")
    parser.add_argument("--second", type=Path, help="another one")
    options = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parts = options.parts or list(PARTS)
    print(describe("tensorflow", "openvino"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as name:
        scratch = Path(name)
        networks: dict[str, dict[int, Path]] = {}
        if "full" in parts or ("many" in parts and options.network == "full"):
            if options.first and options.second:
                networks["full"] = {1: options.first.resolve(), 2: options.second.resolve()}
            else:
                networks["full"] = stand_ins(scratch)
        if set(parts) & {"many", "restarts"}:
            networks["small"] = small(scratch)
        chosen = {"full": "full", "many": options.network, "restarts": "small"}
        for part in parts:
            print(f"{part}, {chosen[part]} network", flush=True)
            run = {"full": full, "many": many, "restarts": restarts}[part]
            figures = run(networks[chosen[part]], scratch / part, options)
            for failure in figures.failures[:5]:
                print(f"  failed: {failure}")
            rows.append(figures.row())
    print_table(HEADER, rows)
    print(
        "wanted: failed 0; not AVAILABLE 0; "
        f"rollback <= {ROLLBACK_SECONDS:g} s; memory and files <= {GROWTH:+.0%}; "
        "computed again: the same (in brackets: how far the other version's are)"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
