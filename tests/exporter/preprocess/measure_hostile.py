"""`python -m tests.exporter.preprocess.measure_hostile`: cost of hostile files in the served graph.

Prints a line of JSON per file: name, bytes, status, CPU seconds, and the peak growth of memory in
MiB. `--side` and `--bytes` are the version's limits. `--headers` uses more than ten thousand files
with combinations of header fields instead, and `--every 7` each seventh of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time

# Set it before the process starts, so that freed memory is returned to the system.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_ARENA_MAX": "2"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--bytes", type=int, default=32 << 20)
    parser.add_argument("--only", default="", help="only files with this prefix")
    parser.add_argument("--headers", action="store_true", help="the files of hostile_headers")
    parser.add_argument("--every", type=int, default=1, help="only each Nth file")
    args = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in _ENVIRONMENT.items()):
        os.environ.update(_ENVIRONMENT)
        os.execv(
            sys.executable,
            [sys.executable, "-m", "tests.exporter.preprocess.measure_hostile", *sys.argv[1:]],
        )
    from featurewire_exporter.preprocess import PreprocessConfig
    from tests.exporter.preprocess.hostile_headers import systematic
    from tests.exporter.preprocess.hostile_images import hostile
    from tests.exporter.preprocess.images import encode, photo, served

    limits = {"max_pixels": args.side**2, "max_image_bytes": args.bytes + (1 << 20)}
    run = served(PreprocessConfig(height=299, width=299, webp=True, **limits))
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        run([encode(photo(640, 480), kind)] * 2)
    files = systematic if args.headers else hostile
    for name, data in itertools.islice(files(args.side, args.bytes), 0, None, args.every):
        if not name.startswith(args.only):
            continue
        seconds, mebibytes, status = _cost(run, data)
        figures = {"seconds": round(seconds, 3), "mebibytes": round(mebibytes)}
        print(
            json.dumps({"name": name, "bytes": len(data), "status": status, **figures}), flush=True
        )


def _cost(run, data: bytes) -> tuple[float, float, int]:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # reset the peak
    before, started = _kibibytes("VmRSS"), time.process_time()
    _, status = run([data])
    spent = time.process_time() - started
    return spent, (_kibibytes("VmHWM") - before) / 1024, int(status[0])


def _kibibytes(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


if __name__ == "__main__":
    main()
