"""An upgrade from EfficientNet-Lite0 to Lite1 with an index that is searched and written to.

Two replicas, a writer, and continuous searches without retries. First version 2, with a bridge, is
rolled out. Then `samples/reindex` re-embeds the index, is killed with -9 several times, and
switches the searches to the new table. Finally version 1 is retired.

Searches are crops of pictures that are not in the bridge's fit. The recall of each phase is
compared with the bridge's: the recall of the same crops through the bridge, in the old vectors of
all these pictures, computed beforehand in one process.

This benchmark runs in the environment of `make test-samples`.

    python -m bench.migration [--index lance|faiss] [--searchers N] [--pair DIR]
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._learned_pair import CROPS, Pair
from bench.machine import describe, print_table

if TYPE_CHECKING:
    from tests.support.migration import Backfill, Query, Search

ROOT = Path(__file__).resolve().parent.parent
SAMPLES_PYTHON = ROOT / ".venv-samples" / "bin" / "python"
FIRST = 220
"""Rows of the index at the start; the writer adds the other pictures."""
KILLS = 3
WRITE_SECONDS = 0.5
SEARCHES = 400
"""Minimum number of searches per phase."""
WINDOW = 200
"""Number of consecutive searches whose recall is compared."""
SAME = 0.9999
"""Minimum cosine between a row and the right vector of its image."""


class Queries:
    """The crops in turn, and the rank of each crop's picture through the bridge."""

    def __init__(self, pair: Pair) -> None:
        self._names = [path.name for path in pair.pictures()]
        self._crops = [path.read_bytes() for path in pair.crops()]
        self._turn = itertools.count()
        vectors = pair.vectors()
        self.bridged = ranks(vectors["bridged"][:, 1:], vectors["old"][:, 0])

    def next(self, rows: int) -> Query:
        from tests.support.migration import Query

        crop = next(self._turn) % (rows * CROPS)
        return Query(crop, self._names[crop // CROPS], self._crops[crop])

    def recall(self, searches: Sequence[Search], within: int) -> tuple[float, float]:
        """Measured recall of searches, and the bridge's recall of the same crops."""
        found = [each.rank is not None and each.rank <= within for each in searches]
        bridged = self.bridged[[each.query.key for each in searches]] <= within
        return float(np.mean(found)), float(bridged.mean())

    def least_lead(self, searches: Sequence[Search], within: int) -> float:
        """Smallest difference between measured and bridged recall over WINDOW searches."""
        leads = []
        for start in range(len(searches) - WINDOW + 1):
            measured, bridged = self.recall(searches[start : start + WINDOW], within)
            leads.append(measured - bridged)
        return min(leads)


def ranks(crops: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rank of each crop's own picture among the nearest, from 1: int `[N * CROPS]`."""
    queries = unit(crops.reshape(-1, crops.shape[2]))
    similarity = queries @ unit(index).T
    own = similarity[np.arange(len(queries)), np.arange(len(queries)) // CROPS]
    return np.asarray((similarity >= own[:, np.newaxis]).sum(axis=1))


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def rows_by_space(index: Any, pair: Pair, names: list[str]) -> dict[str, int]:
    """Number of rows per table and kind of vector; rows with any other vector are "wrong".

    Missing and duplicate rows also count as wrong.
    """
    vectors = pair.vectors()
    counts = dict.fromkeys(["old, native", "old, bridged", "new, native", "wrong"], 0)
    tables = {"old": (pair.space(1), ["old", "bridged"]), "new": (pair.space(2), ["new"])}
    for table, (space, allowed) in tables.items():
        found = index.names(space)
        counts["wrong"] += (
            len(found) - len(set(found)) + (table == "new") * len(set(names) - set(found))
        )
        for name in found:
            row = int(Path(name).stem)
            for way in allowed:
                best, cosine = index.nearest(space, vectors[way][row, 0], 1)[0]
                if best == name and cosine > SAME:
                    counts[f"{table}, {'bridged' if way == 'bridged' else 'native'}"] += 1
                    break
            else:
                counts["wrong"] += 1
    return counts


def migrate(
    pair: Pair, backfill: Backfill, searchers: int
) -> tuple[list[tuple[str, list[Search]]], list[str], list[str]]:
    """Run the upgrade; returns the searches of each phase, the written names and the failures."""
    from tests.support.migration import Traffic, add

    replicas, queries, pictures = backfill.replicas, Queries(pair), pair.pictures()

    def write(number: int) -> str | None:
        if number == len(pictures):
            return None
        (backfill.images / pictures[number].name).symlink_to(pictures[number])
        return pictures[number].name

    names = [str(write(number)) for number in range(FIRST)]
    with replicas.client() as client:
        assert add(backfill.index(), client, backfill.images, names) == {}
    phases: list[tuple[str, list[Search]]] = []
    with Traffic(
        backfill,
        names,
        write=write,
        query=queries.next,
        searchers=searchers,
        pause=WRITE_SECONDS,
    ) as traffic:

        def phase(name: str, *steps: Any) -> None:
            before = len(traffic.searches)
            for step in steps:
                step()
            traffic.goes_on(SEARCHES, rows=5 if len(names) < len(pictures) - 5 else 0)
            phases.append((name, traffic.searches[before:]))
            print(f"  {time.strftime('%H:%M:%S')} {name}: {len(names)} rows", flush=True)

        phase("version 1")
        phase(
            "rollout",
            lambda: replicas.rollout("start", "--version=2"),
            lambda: replicas.rollout("promote", "--accept-bridge"),
        )
        phase("bridge")
        phase(
            f"backfill, {KILLS} times killed",
            lambda: backfill.kill_at_random(pair.space(2), KILLS, step=2),
        )
        phase("backfill and switch", backfill.finish)
        phase("version 1 retired", lambda: replicas.rollout("retire"))
    return phases, names, traffic.failures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.migration", description=__doc__)
    parser.add_argument("--index", choices=("lance", "faiss"), default="lance")
    parser.add_argument("--searchers", type=int, default=4)
    parser.add_argument("--pair", type=Path, help="folder of `bench._learned_pair`")
    options = parser.parse_args(argv)
    if importlib.util.find_spec("lancedb") is None:
        if not SAMPLES_PYTHON.exists():
            print("skipped: run `make test-samples` once to make its environment")
            return 0
        arguments = sys.argv[1:] if argv is None else argv
        os.execv(SAMPLES_PYTHON, [str(SAMPLES_PYTHON), "-m", "bench.migration", *arguments])
    from tests.support.migration import Backfill, Replicas
    from tests.support.project import in_project

    print(describe())
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as name:
        folder = Path(name)
        if options.pair is None:
            in_project("-m", "bench._learned_pair", name)
        pair = Pair((options.pair or folder).resolve())
        (folder / "images").mkdir()
        with Replicas(pair.base_path, folder) as replicas:
            backfill = Backfill(replicas, options.index, folder / "index", folder / "images")
            phases, names, failures = migrate(pair, backfill, options.searchers)
        rows = rows_by_space(backfill.index(), pair, names)
        queries = Queries(pair)
    return report(queries, phases, failures, rows)


def report(
    queries: Queries,
    phases: list[tuple[str, list[Search]]],
    failures: list[str],
    rows: dict[str, int],
) -> int:
    table: list[list[object]] = []
    for name, searches in phases:
        figures = [figure for within in (1, 10) for figure in queries.recall(searches, within)]
        table.append([name, len(searches), *(f"{figure:.3f}" for figure in figures)])
    print_table(["phase", "searches", "recall@1", "bridged", "recall@10", "bridged"], table)
    every = [search for _, searches in phases for search in searches]
    leads = [queries.least_lead(every, within) for within in (1, 10)]
    print(f"worst {WINDOW} consecutive searches: {leads[0]:+.3f} at 1, {leads[1]:+.3f} at 10")
    print("rows: " + ", ".join(f"{count} {name}" for name, count in rows.items()))
    print(f"failed: {len(failures)}")
    for failure in failures[:5]:
        print(f"  {failure}")
    print("goal: failed 0; 0 wrong; each phase at least at the bridge's recall")
    recalls = [[queries.recall(each, within) for within in (1, 10)] for _, each in phases]
    below = any(found < bridged for phase in recalls for found, bridged in phase)
    return int(bool(failures or rows["wrong"] or below))


if __name__ == "__main__":
    raise SystemExit(main())
