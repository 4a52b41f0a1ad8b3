"""Import time and installed size of the client.

Compared with `tensorflow-serving-api` and its TensorFlow. The client is installed with pip into a
separate environment; the peer is measured in this one.
"""

from __future__ import annotations

import importlib.metadata
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from packaging.requirements import Requirement

from bench.machine import describe, print_table

ROOT = Path(__file__).resolve().parent.parent
RUNS = 9
PEER_RUNS = 3
TIMED = """
import time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
"""
BARE = "import featurewire"
OURS = "from featurewire import Client"  # names are imported when first used
PEER = """
import tensorflow
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
"""
LIMIT_SECONDS, LIMIT_SHARE, LIMIT_MB, LIMIT_OWN_MB = 0.2, 0.1, 100.0, 1.0


def import_seconds(python: Path, statement: str, runs: int) -> float:
    """Median over new processes, without the first one, which fills the disk cache."""
    times = []
    for _ in range(runs + 1):
        done = subprocess.run(
            [python, "-c", TIMED.format(statement=statement)],
            capture_output=True,
            text=True,
            check=True,
        )
        times.append(float(done.stdout.split()[-1]))
    return statistics.median(times[1:])


def megabytes(distribution: importlib.metadata.Distribution) -> float:
    """Size of the distribution's files on disk, including compiled modules, in 10^6 bytes."""
    files = {Path(str(distribution.locate_file(file))) for file in distribution.files or ()}
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def closure(name: str) -> dict[str, importlib.metadata.Distribution]:
    """The installed distribution and everything that it requires."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [name]
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        key = distribution.name.lower().replace("_", "-")
        if key in found:
            continue
        found[key] = distribution
        for line in distribution.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def install_client(folder: Path) -> Path:
    """Make an environment with the client and its requirements; returns its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    locked = [sys.executable, str(ROOT / "scripts" / "locked.py"), "client"]
    requirements = folder / "requirements.txt"
    requirements.write_bytes(subprocess.run(locked, stdout=subprocess.PIPE, check=True).stdout)
    for wanted in (["--require-hashes", "-r", str(requirements)], [str(ROOT / "client")]):
        subprocess.run(
            [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            + ["--no-deps", *wanted],
            check=True,
        )
    return python


def client_sizes(python: Path) -> dict[str, float]:
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    return {
        distribution.name: megabytes(distribution)
        for distribution in importlib.metadata.distributions(path=[site])
        if distribution.name not in ("pip", "setuptools")
    }


def main() -> int:
    print(describe("tensorflow", "tensorflow-serving-api", "grpcio", "numpy", "protobuf"))
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        python = install_client(Path(scratch) / "venv")
        bare, seconds = (import_seconds(python, each, RUNS) for each in (BARE, OURS))
        floor = import_seconds(python, "import grpc, numpy, google.protobuf.message", RUNS)
        sizes = client_sizes(python)
    peer_seconds = import_seconds(Path(sys.executable), PEER, PEER_RUNS)
    peer_mb = sum(map(megabytes, closure("tensorflow-serving-api").values()))
    total, own = sum(sizes.values()), sizes["featurewire"]
    print_table(
        ["import, median", "seconds", "share of peer"],
        [
            [BARE, f"{bare:.3f}", f"{bare / peer_seconds:.3f}"],
            [OURS, f"{seconds:.3f}", f"{seconds / peer_seconds:.3f}"],
            ["  grpc, numpy and protobuf alone", f"{floor:.3f}", f"{floor / peer_seconds:.3f}"],
            ["tensorflow-serving-api + tensorflow", f"{peer_seconds:.3f}", "1"],
            ["limit", f"{LIMIT_SECONDS:.3f}", f"{LIMIT_SHARE:.3f}"],
        ],
    )
    print()
    rows = [[f"  {name}", f"{size:.2f}"] for name, size in sorted(sizes.items())]
    print_table(
        ["installed", "MB"],
        [
            ["featurewire and its requirements", f"{total:.1f}"],
            *rows,
            ["tensorflow-serving-api and its requirements", f"{peer_mb:.0f}"],
            ["limit; for featurewire alone", f"{LIMIT_MB:.0f}; {LIMIT_OWN_MB:.0f}"],
        ],
    )
    held = (
        seconds <= LIMIT_SECONDS
        and seconds <= LIMIT_SHARE * peer_seconds
        and total <= LIMIT_MB
        and own <= LIMIT_OWN_MB
    )
    print("all limits held" if held else "a limit is missed")
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
