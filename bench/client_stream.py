"""`Client.stream`: are its defaults as good as the best fixed number of requests in flight?

`embedded`: the embedded server with a published version and real photos. The defaults and every
fixed number of requests in flight take turns, so that drift of the machine affects all equally.

`beside`: two streams at once, with the defaults and with fixed numbers: the rate of each, and their
requests in flight.

`instant`: a server that answers at once, in a separate process: images/s and MB/s of one client
process, CPU time of both processes, and a profile of the client.

    python -m bench.client_stream [embedded|beside|instant] [--base-path DIR] [--seconds S]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

from bench._instant_server import instant_server
from bench._published import published, serving
from bench._serving_load import MODEL, jpegs, stream_rate
from bench.machine import describe, print_table
from featurewire import Client, StreamConfig

FIXED = (1, 2, 4, 8)
ROUNDS = 3
ROUND_SECONDS = 24.0
SHARE = 0.97
ALIKE = 1.5

INSTANT_IMAGES = 40_000
IMAGE_BYTES = 100_000


def embedded(base_path: Path | None, seconds: float) -> bool:
    contents = jpegs()
    configs = {"defaults": StreamConfig()} | {
        f"{number} in flight": fixed(number) for number in FIXED
    }
    rates: dict[str, list[float]] = {name: [] for name in configs}
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = base_path or published(Path(scratch))
        with serving(base_path, MODEL) as target:
            clients = {
                name: Client(target, model=MODEL, stream=config) for name, config in configs.items()
            }
            for client in clients.values():
                client.wait_until_ready(120)
            list(client.stream(contents))
            for _ in range(ROUNDS):
                for name, client in clients.items():
                    rates[name].append(stream_rate(client, contents, seconds)[1])
                last = (f"{name} {each[-1]:.1f}" for name, each in rates.items())
                print(f"images/s: {', '.join(last)}", flush=True)
            for client in clients.values():
                client.close()
    medians = {name: statistics.median(each) for name, each in rates.items()}
    best = max(rate for name, rate in medians.items() if name != "defaults")
    print_table(
        ["embedded server", "images/s", "of the best fixed", "rounds"],
        [
            [
                name,
                f"{rate:.1f}",
                f"{rate / best:.3f}",
                " ".join(f"{each:.1f}" for each in rates[name]),
            ]
            for name, rate in medians.items()
        ],
    )
    held = medians["defaults"] >= SHARE * best
    print(f"defaults >= {SHARE} of the best fixed number: {'held' if held else 'missed'}")
    return held


def beside(base_path: Path | None, seconds: float) -> bool:
    contents = jpegs()
    rows, rates = [], {}
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = base_path or published(Path(scratch))
        with serving(base_path, MODEL) as target:
            for name, config in {
                "defaults": StreamConfig(),
                "1 each": fixed(1),
                "2 each": fixed(2),
            }.items():
                got, flying = pair(target, config, contents, seconds)
                rates[name] = got
                rows.append(
                    [name, f"{sum(got):.1f}", f"{got[0]:.1f} {got[1]:.1f}", f"{flying:.1f}"]
                )
    print_table(["two streams", "images/s", "each", "in flight, both"], rows)
    best = max(sum(got) for name, got in rates.items() if name != "defaults")
    held = sum(rates["defaults"]) >= SHARE * best and max(rates["defaults"]) <= ALIKE * min(
        rates["defaults"]
    )
    print(
        f"defaults >= {SHARE} of the best fixed number, shares within a factor of {ALIKE}: "
        f"{'held' if held else 'missed'}"
    )
    return held


def pair(
    target: str, config: StreamConfig, contents: list[bytes], seconds: float
) -> tuple[list[float], float]:
    """Run two streams for `seconds`, the second one starting a little later.

    Returns images/s of each in the second half, and the mean number of requests in flight of both.
    """
    clients = [Client(target, model=MODEL, stream=config) for _ in range(2)]
    for client in clients:
        client.wait_until_ready(120)
    with futures.ThreadPoolExecutor(2) as pool:
        streams = []
        for client in clients:
            streams.append(pool.submit(stream_rate, client, contents, seconds))
            time.sleep(seconds / 20)
        time.sleep(seconds / 2)
        began, before = time.monotonic(), [client.stats().images for client in clients]
        flying = []
        while time.monotonic() - began < seconds / 2 - seconds / 10:
            flying.append(sum(client.stats().in_flight for client in clients))
            time.sleep(0.05)
        after, elapsed = [client.stats().images for client in clients], time.monotonic() - began
        for stream in streams:
            stream.result()
    for client in clients:
        client.close()
    images = [late - early for early, late in zip(before, after, strict=True)]
    return [each / elapsed for each in images], statistics.mean(flying)


def fixed(number: int) -> StreamConfig:
    return StreamConfig(in_flight=number)


def distinct(count: int) -> Iterator[bytes]:
    filling = bytes(IMAGE_BYTES - 8)
    return (number.to_bytes(8, "little") + filling for number in range(count))


def instant() -> None:
    rows = []
    with instant_server() as server, Client(server.target, model=MODEL) as client:
        for _ in client.stream(distinct(1000)):
            pass
        making = time.process_time()
        for _ in distinct(INSTANT_IMAGES):
            pass
        making = time.process_time() - making
        theirs, ours, start = server.cpu_seconds(), time.process_time(), time.perf_counter()
        for _ in client.stream(distinct(INSTANT_IMAGES)):
            pass
        seconds = time.perf_counter() - start
        ours, theirs = time.process_time() - ours - making, server.cpu_seconds() - theirs
        rows.append(
            [
                f"{INSTANT_IMAGES / seconds:.0f}",
                f"{INSTANT_IMAGES * IMAGE_BYTES / seconds / 1e6:.0f}",
                f"{ours / INSTANT_IMAGES * 1e6:.0f}",
                f"{ours / seconds:.2f}",
                f"{theirs / seconds:.2f}",
            ]
        )
        print_table(
            ["images/s", "MB/s", "client CPU us/image", "client cores", "server cores"], rows
        )
        profile = cProfile.Profile()
        profile.runcall(lambda: list(client.stream(distinct(INSTANT_IMAGES // 4))))
    print(f"\nprofile of the calling thread, {INSTANT_IMAGES // 4} images:")
    pstats.Stats(profile, stream=sys.stdout).strip_dirs().sort_stats("tottime").print_stats(14)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", choices=["embedded", "beside", "instant"])
    parser.add_argument("--base-path", type=Path, help="a published model; default: the stand-in")
    parser.add_argument(
        "--seconds", type=float, default=ROUND_SECONDS, help="of a round; use several full batches"
    )
    args = parser.parse_args(argv)
    print(describe("tensorflow", "grpcio", "numpy", "protobuf"))
    held = True
    if args.part in (None, "embedded"):
        held = embedded(args.base_path, args.seconds)
    if args.part in (None, "beside"):
        held &= beside(args.base_path, 2 * args.seconds)
    if args.part in (None, "instant"):
        instant()
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
