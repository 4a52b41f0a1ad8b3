"""What an index owner needs to know of a bridge, as text."""

from __future__ import annotations

from featurewire_exporter.bridge.fit import Bridge


def report(bridge: Bridge) -> str:
    """Some lines for people."""
    kept = bridge.retention
    rows = [
        ("bridged queries, old index", kept.bridged.at_1, kept.bridged.at_10),
        ("everything embedded again", kept.reembedded.at_1, kept.reembedded.at_10),
        ("kept by the bridge", kept.at_1, kept.at_10),
    ]
    if kept.untouched is not None:
        rows.append(("no bridge, old index", kept.untouched.at_1, kept.untouched.at_10))
    curve = ", ".join(f"{at_1:.3f} from {count} pictures" for count, at_1, _ in bridge.curve)
    lines = [
        f"Bridge to vector space {bridge.vector_space} ({bridge.map.kind} map, learned from "
        f"{bridge.pictures} pictures, tested with {kept.queries} crops of {kept.index} others)",
        f"  {'':<28}recall@1  recall@10",
        *(f"  {name:<28}{at_1:8.3f}  {at_10:9.3f}" for name, at_1, at_10 in rows),
        f"  Of the ten nearest of a picture, {kept.overlap_at_10:.0%} stay.",
        f"  Recall@1 kept: {curve}.",
        f"  In an index that also holds the learned pictures: recall@1 "
        f"{kept.among_learned.at_1:.3f}, recall@10 {kept.among_learned.at_10:.3f}.",
    ]
    if kept.cutoffs:
        table = ", ".join(f"{old:.2f} -> {now:.2f}" for old, now in kept.cutoffs)
        lines.append(f"  Cut-offs with the same share of false matches: {table}.")
    return "\n".join(lines)
