"""The embedded server under ten times its capacity, with deadlines.

First a closed loop measures the capacity and the CPU time per image. Then, for each timeout, single
images arrive at Poisson times at ten times that rate. `back` is the rate of a closed loop from two
seconds after the overload, relative to the capacity.

The callers share the CPU with the server. `callers` is their share of it, and `of the rest` the
rate relative to the capacity that they leave. `others` is the share of other processes; if it is
not zero, measure again.

    python -m bench.serve_overload [ROW …] [--timeouts 2,5,30] [--seconds S] [--base-path DIR]
        [--server DIR]: another tree of this repository, to compare with
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from bench._crowd import Grpc, Http, crowd, predict_request, rest, steady
from bench._published import free_port, published, serving
from bench._serving_load import MODEL, jpegs, server_pid
from bench.machine import busy_seconds, cpu_seconds, describe, print_table, resident

TIMES = 10
CALLERS = 48
STEADY_SECONDS = 20.0
BACK_SECONDS = 14.0
WAY = 0.25
"""Part of a REST caller's timeout that is left for the round trip, in seconds."""
CORES = len(os.sched_getaffinity(0))

ROWS = {
    "openvino": ["--engine=openvino"],
    "tensorflow": ["--engine=tensorflow"],
    "unbatched": ["--engine=openvino", "--enable_batching=false", "--batching_parameters_file="],
    "rest": ["--engine=openvino"],
}


async def measure(
    name: str,
    target: str,
    rest_port: int,
    contents: list[bytes],
    timeouts: list[float],
    seconds: float,
) -> list[list[object]]:
    if name == "rest":
        send: Grpc | Http = rest(rest_port, MODEL, contents)
    else:
        send = Grpc(target, [predict_request(MODEL, image) for image in contents])
    pid = server_pid(target)
    callers = CALLERS
    if name == "rest":  # their calls have a timeout even in the closed loop
        callers = min(callers, int(4 * timeouts[0]))
    await steady(send, 8.0, callers=callers)
    before = cpu_seconds(pid)
    capacity = await steady(send, STEADY_SECONDS, callers=callers)
    cost = (cpu_seconds(pid) - before) / (capacity * STEADY_SECONDS)
    rows: list[list[object]] = []
    for timeout in timeouts:
        before, machine, own = cpu_seconds(pid), busy_seconds(), time.process_time()
        tally = await crowd(send, seconds, per_second=TIMES * capacity, timeout=timeout)
        spent, own = cpu_seconds(pid) - before, time.process_time() - own
        others = busy_seconds() - machine - spent - own
        crowds = own / seconds / CORES
        back = await steady(send, BACK_SECONDS, callers=callers, skip=2.0)
        answered = len(tally.answered)
        share = answered / seconds / capacity
        rows.append(
            [f"{name}, {timeout:g} s", f"{capacity:.2f}", f"{answered / seconds:.2f}"]
            + [f"{share:.2f}", f"{crowds:.0%}", f"{share / (1 - crowds):.2f}"]
            + [f"{1000 * tally.refusal:.0f}"]
            + [f"{spent / max(answered, 1) / cost:.2f}", len(tally.refused), tally.late]
            + [f"{back / capacity:.2f}", f"{resident(pid, 'VmHWM') / 2**20:.0f}"]
            + [f"{max(others, 0.0) / seconds / CORES:.0%}"]
        )
        print(rows[-1], flush=True)
    await send.close()
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.serve_overload", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"among {', '.join(ROWS)}")
    parser.add_argument("--timeouts", default="2,5,30", help="seconds")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the overload")
    parser.add_argument("--base-path", type=Path, help="base path of a published version")
    parser.add_argument("--server", type=Path, help="measure the server of another tree")
    options = parser.parse_args(argv)
    if unknown := set(options.rows) - ROWS.keys():
        parser.error(f"no row {', '.join(sorted(unknown))}")
    timeouts = [float(each) for each in options.timeouts.split(",")]
    if options.server:
        paths = [str(options.server.resolve() / part) for part in ("server", "client")]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    print(describe("tensorflow", "openvino"))
    contents, table = jpegs(), []
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = (options.base_path or published(Path(scratch))).resolve()
        for name in options.rows or ROWS:
            # Over REST the timeout is a flag, and counts from the end of the request.
            for each in [[timeout] for timeout in timeouts] if name == "rest" else [timeouts]:
                rest_port = free_port()
                flags = [f"--rest_api_port={rest_port}", *ROWS[name]]
                if name == "rest":
                    flags.append(f"--rest_api_timeout_in_ms={int((each[0] - WAY) * 1000)}")
                with serving(base_path, MODEL, *flags) as target:
                    run = measure(name, target, rest_port, contents, each, options.seconds)
                    table += asyncio.run(run)
    print_table(
        ["ten times overload", "capacity/s", "in time/s", "ratio", "callers", "of the rest"]
        + ["rejection ms", "CPU ratio", "rejected", "late", "back", "peak MB", "others"],
        table,
    )
    print("goal: ratio >= 0.9, rejection <= 50 ms, CPU <= 1.1, back >= 0.9; memory bounded")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
