"""`python -m bench [NAME …]`: run the named benchmarks, or all of them, one after the other."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import bench

NOT_BENCHMARKS = {"__main__", "machine", "tune_batching"}


def names() -> list[str]:
    found = {module.name for module in pkgutil.iter_modules(bench.__path__)}
    return sorted(name for name in found - NOT_BENCHMARKS if not name.startswith("_"))


def main(argv: list[str]) -> int:
    unknown = sorted(set(argv) - set(names()))
    if unknown:
        print(f"bench: no benchmark {', '.join(unknown)}; there are {', '.join(names())}")
        return 2
    failed = []
    for name in argv or names():
        print(f"\n== {name}", flush=True)
        # A process each: what one imports or allocates must not show in the next one's figures.
        if subprocess.run([sys.executable, "-m", f"bench.{name}"]).returncode:
            failed.append(name)
    if failed:
        print(f"\nbench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
