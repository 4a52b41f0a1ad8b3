"""`python -m bench [PART …] [--quick]`: measure parts, one after another, and write the report.

New figures replace those of the same part in the result file, so you can repeat a single part. A
part without new figures keeps its old ones. The pages docs/measurements.md and docs/performance.md
are made from the file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from bench import models, report, results, summary
from bench._published import ROOT
from bench.machine import busy_seconds, machine, own_seconds, usable_cores
from bench.parts import NAMES
from bench.parts.__main__ import figures_of
from bench.sharing import sharing

QUICK = ROOT / "build" / "bench" / "quick"
DOCS = ROOT / "docs"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"among {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help=f"fewer rounds; results in {QUICK}")
    parser.add_argument("--report", action="store_true", help="only write the pages again")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.parts) - set(NAMES)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(NAMES)}")
    file = QUICK / "results.json" if options.quick else results.LATEST
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    failed = []
    if not (options.report or options.parts):
        print("== models", flush=True)
        began = time.perf_counter()
        models.make(quick=options.quick)
        print(f"made in {time.perf_counter() - began:.0f} s", flush=True)
    with sharing() if options.quick else contextlib.nullcontext():
        for name in () if options.report else options.parts or NAMES:
            print(f"\n== {name}", flush=True)
            try:
                part = measured(name, options.quick)
            except Exception:
                traceback.print_exc()
                print(f"bench: {name} failed", file=sys.stderr)
                failed.append(name)
                continue
            if not part["figures"]:
                print("nothing to measure in this run; earlier figures stay", flush=True)
                continue
            results.save(file, results.load(file) | {name: part})
            print(report.of_part(results.load(file)[name]), flush=True)
    folder = QUICK if options.quick else DOCS
    page = folder / "measurements.md"
    parts = results.load(file)
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text(report.page(parts))
    (folder / "performance.md").write_text(summary.page(parts))
    if parts:
        from bench import plots

        plots.write(parts, page.with_suffix(""))
    print(f"\nwritten: {file}, {page}")
    return 1 if failed else 0


def measured(name: str, quick: bool) -> dict[str, object]:
    """Measure a part; returns its figures, the date and the machine.

    Each part has its own process, so that imports and memory of one part do not affect the next. A
    quick run uses this process, because imports and starts would take most of the time.
    """
    began, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    figures = figures_of(name, quick=True) if quick else _measured_apart(name)
    seconds = time.perf_counter() - began
    others = busy_seconds() - busy - (own_seconds() - own)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "quick": quick,
        "seconds": seconds,
        "machine": machine(),
        "others": max(others, 0.0) / seconds / usable_cores(),
        "figures": figures,
    }


def _measured_apart(name: str) -> list[dict[str, object]]:
    """Raises CalledProcessError."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "bench.parts", name, file.name]
        subprocess.run(command, check=True, cwd=ROOT)
        return results.read_figures(Path(file.name))


if __name__ == "__main__":
    raise SystemExit(main())
