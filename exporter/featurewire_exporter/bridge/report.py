"""The measurements of a bridge as text, for the owner of an index."""

from __future__ import annotations

from featurewire_exporter.bridge.fit import Bridge
from featurewire_exporter.bridge.retention import Retention


def report(bridge: Bridge) -> str:
    """The measurements of a bridge, in a few lines."""
    kept = bridge.retention
    ways = [
        ("bridged queries, old index", kept.bridged, kept.overlap_at_10),
        ("everything embedded again", kept.reembedded, kept.reembedded_overlap_at_10),
        ("no bridge, old index", kept.untouched, kept.untouched_overlap_at_10),
        ("bridged, learned pictures in it too", kept.among_learned, None),
    ]
    shares: list[tuple[str, float, float | None]] = [
        (f"kept by the bridge, {kept.index} in the index", kept.at_1, kept.at_10)
    ]
    shares += [(f"  with {size} in the index", at_1, None) for size, at_1 in kept.by_index[:-1]]
    shares += [(f"  learned from {n} pictures", at_1, at_10) for n, at_1, at_10 in bridge.curve]
    maps = ", ".join(f"{kind} {score:.3f}" for kind, score in bridge.compared.items())
    lines = [
        f"Bridge to vector space {bridge.vector_space} ({bridge.map.kind} map, learned from "
        f"{bridge.pictures} pictures, tested with {kept.queries} crops of {kept.index} others)",
        _row("", "recall@1", "recall@10", "overlap@10"),
        *(_row(name, found.at_1, found.at_10, same) for name, found, same in ways if found),
        *(_row(*share) for share in shares),
    ]
    if foretold := _twice(bridge.curve):
        lines.append(f"  {foretold}")
    if larger := _larger(kept):
        lines.append(f"  {larger}")
    lines.append(f"  Maps compared, by mean reciprocal rank: {maps}.")
    if kept.cutoffs:
        table = ", ".join(f"{old:.2f} -> {now:.2f}" for old, now in kept.cutoffs)
        lines.append(f"  Cut-offs with the same share of false matches: {table}.")
    return "\n".join(lines)


def _larger(kept: Retention) -> str | None:
    """The recall that the bridge should keep in an index larger than the tested one."""
    shown = []
    for times in (4, 16):
        size = times * kept.index
        if (at_1 := kept.at_1_in(size)) is not None:
            shown.append(f"{at_1:.2f} of recall@1 with {size}")
    if not shown:
        return None
    return f"A larger index keeps less: about {' and '.join(shown)} pictures in it."


def _row(name: str, *cells: float | str | None) -> str:
    shown = [f"{cell:.3f}" if isinstance(cell, float) else cell or "" for cell in cells]
    return f"  {name:<36}{''.join(f'{cell:>11}' for cell in shown)}".rstrip()


def _twice(curve: tuple[tuple[int, float, float], ...]) -> str | None:
    """The recall with twice as many pictures, if the loss goes on shrinking by the same factor."""
    before, now = (at_1 for _, at_1, _ in curve[-2:])
    if not before < now < 1:
        return None
    return f"Twice as many would keep about {1 - (1 - now) ** 2 / (1 - before):.2f} of recall@1."
