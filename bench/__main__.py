"""`python -m bench [PART …] [--quick]`: measure the parts, one after the other, and write a report.

The figures of a part replace those of the same part in the result file, so that a part can be
measured again alone. The page docs/performance.md is made of the file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import report, results
from bench._published import ROOT
from bench.machine import busy_seconds, child_seconds, machine, usable_cores
from bench.parts import NAMES

QUICK = ROOT / "build" / "bench" / "quick"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"among {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help=f"fewer rounds, kept apart in {QUICK}")
    parser.add_argument("--report", action="store_true", help="only write the report again")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.parts) - set(NAMES)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(NAMES)}")
    file = QUICK / "results.json" if options.quick else results.LATEST
    failed = []
    for name in () if options.report else options.parts or NAMES:
        print(f"\n== {name}", flush=True)
        try:
            measured = measured_apart(name, options.quick)
        except subprocess.CalledProcessError as error:
            print(f"bench: {name} failed with status {error.returncode}", file=sys.stderr)
            failed.append(name)
            continue
        results.save(file, results.load(file) | {name: measured})
        print(report.of_part(name, results.load(file)[name]), flush=True)
    page = QUICK / "performance.md" if options.quick else report.PAGE
    parts = results.load(file)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(report.page(parts))
    if parts:
        from bench import plots

        plots.write(parts, page.with_suffix(""))
    print(f"\nwritten: {file}, {page}")
    return 1 if failed else 0


def measured_apart(name: str, quick: bool) -> dict[str, object]:
    """A part's figures and what they were measured on.

    In a process of its own: what one part imports or allocates must not show in the next one's
    figures. Raises CalledProcessError.
    """
    began, busy, own = time.perf_counter(), busy_seconds(), child_seconds()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "bench.parts", name, file.name, *["quick"][: int(quick)]]
        subprocess.run(command, check=True, cwd=ROOT)
        figures = results.read_figures(Path(file.name))
    seconds = time.perf_counter() - began
    others = busy_seconds() - busy - (child_seconds() - own)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "quick": quick,
        "seconds": seconds,
        "machine": machine(),
        "others": max(others, 0.0) / seconds / usable_cores(),
        "figures": figures,
    }


if __name__ == "__main__":
    raise SystemExit(main())
