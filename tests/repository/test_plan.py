"""The calculator of docs/scaling.md: its queueing model agrees with a simulation; its messages."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.plan import PlanError, Replica, quantiles, rows, simulate

ROOT = Path(__file__).resolve().parents[2]
SHARES = (0.5, 0.9, 0.99)


@pytest.mark.parametrize(
    ("replica", "used"),
    [
        (Replica(fixed=0.06, per_image=0.01, batch=16), 0.3),
        (Replica(fixed=0.06, per_image=0.01, batch=16), 0.8),
        (Replica(fixed=0.0, per_image=0.15, batch=4), 0.8),
    ],
)
def test_latencies_are_those_of_the_simulated_queue(replica, used):
    rate = used * replica.capacity
    found = sorted(simulate(replica, rate, images=200_000))
    for share, told in zip(SHARES, quantiles(replica, rate, SHARES), strict=True):
        assert told == pytest.approx(found[int(share * len(found))], rel=0.04)


def test_batches_of_one_are_the_queue_of_the_textbooks():
    """In an M/D/1 queue, the wait is 0 with probability 1 - used, so the latency is the service."""
    replica = Replica(fixed=0.0, per_image=0.1, batch=1)
    assert quantiles(replica, 5.0, (0.49,)) == [pytest.approx(0.1)]
    assert quantiles(replica, 5.0, (0.51,))[0] > 0.1


def test_a_replica_is_known_by_two_figures():
    replica = Replica.measured(one_image=0.07, per_second=16 / 0.22, batch=16)
    assert (replica.fixed, replica.per_image) == (pytest.approx(0.06), pytest.approx(0.01))
    assert replica.capacity == pytest.approx(16 / 0.22)
    with pytest.raises(PlanError, match="measure both again"):
        Replica.measured(one_image=0.01, per_second=50, batch=16)


def test_the_fewest_replicas_within_the_latency_are_found():
    replica = Replica(fixed=0.06, per_image=0.01, batch=16)
    table = rows(replica, 200.0, 99, 0.3)
    assert all(row.tail > 0.3 for row in table[:-1])
    assert table[-1].tail <= 0.3
    assert table[-1].replicas > 200 / replica.capacity
    with pytest.raises(PlanError, match="one image alone takes 70 ms"):
        rows(replica, 1.0, 99, 0.05)


def run(arguments: str, status: int = 0) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "plan.py"), *shlex.split(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_the_page_shows_what_the_calculator_says():
    page = (ROOT / "docs" / "scaling.md").read_text()
    (example,) = re.findall(r"\$ python scripts/plan.py (.*)\n([^`]*)```", page)
    assert run(example[0]).strip() == example[1].strip()


def test_cores_for_decoding_are_counted():
    said = run(
        "--rate 2000 --latency-ms 500 --images-per-second 1200 --one-image-ms 10 --batch 32 "
        "--decode-ms 8"
    )
    assert "23 cores decode 2000 images/s" in said


def test_wrong_figures_are_told_in_one_line():
    tail = "--images-per-second 80 --one-image-ms 400"
    said = run(f"--rate 10 --latency-ms 100 {tail}", status=1)
    assert said.startswith("plan: ")
    assert said.count("\n") == 1
    run(f"--rate -1 --latency-ms 100 {tail}", status=2)
    run(f"--rate 1 --latency-ms 100 --batch 0 {tail}", status=2)
