"""Compare two served versions: get the vectors, measure, decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from featurewire_rollout.check import crops, neighbours
from featurewire_rollout.check.config import CheckConfig
from featurewire_rollout.check.cutoffs import cutoffs
from featurewire_rollout.check.measures import measure
from featurewire_rollout.check.pairs import Pairs
from featurewire_rollout.check.pull import Progress, Source, images_in, pull
from featurewire_rollout.check.report import Report
from featurewire_rollout.check.thresholds import Thresholds
from featurewire_rollout.check.verdict import decide


def compare(
    stable: Source,
    canary: Source,
    images: Path | Sequence[Path],
    config: CheckConfig = CheckConfig(),  # noqa: B008
    *,
    progress: Progress | None = None,
) -> Report:
    """Send images through both versions and judge the vectors.

    Args:
        stable, canary: Clients pinned to a label or version.
        images: Files, or a directory that is searched for them.
        progress: Called with the number of images done, and of all.

    Raises `CheckError` if there are no images or a version changes during the check, and other
    `FeaturewireError`s if a call fails.
    """
    paths = images_in(images) if isinstance(images, Path) else list(images)
    pairs = pull(stable, canary, paths, config, progress=progress)
    report = judge(pairs, config.thresholds, seed=config.seed)
    if not crops.available():
        return report
    pictures = {}
    for row in sorted({row for rows in report.worst_pairs() for row in rows}):
        small = crops.thumbnail(pairs.files[row].read_bytes())
        if small is not None:
            pictures[row] = small
    return dataclasses.replace(report, pairs=dataclasses.replace(pairs, thumbnails=pictures))


def judge(pairs: Pairs, thresholds: Thresholds, *, seed: int = 0) -> Report:
    """Measure and decide. The same pairs and seed give the same report."""
    measures, cosines = measure(pairs, thresholds, seed=seed)
    verdict = decide(
        measures,
        thresholds,
        images=int(pairs.usable.sum()),
        same_dimension=pairs.same_dimension,
        spaces=(pairs.stable.vector_space, pairs.canary.vector_space),
        bridge=pairs.canary.bridges.get(pairs.stable.vector_space or ""),
    )
    remarks = []
    if pairs.stable.crops is None:
        reason = "" if crops.available() else f"; {crops.NEEDS_PILLOW}"
        remarks.append(f"Recall of crops was not measured{reason}.")
    vectors = pairs.stable.vectors[pairs.usable]
    if len(vectors) > 1 and neighbours.flat_rows(neighbours.similarities(vectors)).all():
        remarks.append(
            "In stable's vectors every image is equally similar to all others: neighbours and "
            "ranks show nothing, only cosines do."
        )
    if pairs.stable.version == pairs.canary.version:
        remarks.append(
            f"Both sides are version {pairs.stable.version}: it was compared with itself."
        )
    return Report(
        pairs=pairs,
        thresholds=thresholds,
        measures=measures,
        cutoffs=cutoffs(pairs, seed=seed),
        verdict=verdict,
        cosines=cosines,
        seed=seed,
        remarks=tuple(remarks),
    )
