"""The status as a table for people and as JSON for programs."""

from __future__ import annotations

from typing import Any

from featurewire_rollout.decide.phase import Status
from featurewire_rollout.decide.spaces import bridge_notes
from featurewire_rollout.decide.view import Manifest


def as_dict(status: Status) -> dict[str, Any]:
    entry, phase = status.entry, status.phase
    return {
        "model": status.model,
        "phase": phase.name,
        "text": phase.text,
        "next": list(phase.next),
        "differences": list(phase.differences),
        "config": None
        if entry is None
        else {
            "policy": entry.policy,
            "versions": None if entry.versions is None else list(entry.versions),
            "labels": dict(entry.labels),
        },
        "replicas": [
            {
                "address": replica.address,
                "error": replica.error or None,
                "labels": dict(replica.labels),
                "versions": [
                    {
                        "version": number,
                        "state": found.state,
                        "error": found.error_message or None,
                        "vector_space": _manifest(replica.manifests.get(number), "vector_space"),
                        "bridged_spaces": _bridges(replica.manifests.get(number)),
                        "manifest": _manifest(replica.manifests.get(number), "digest"),
                    }
                    for number, found in sorted(replica.versions.items())
                ],
            }
            for replica in status.fleet.replicas
        ],
        "mixed_versions": {
            str(version): digests for version, digests in status.fleet.mixed_versions().items()
        },
    }


def as_text(status: Status) -> str:
    rows = [("REPLICA", "VERSION", "STATE", "LABELS", "VECTOR SPACE")]
    notes = []
    for replica in status.fleet.replicas:
        if not replica.reached:
            rows.append((replica.address, "-", "no answer", "", ""))
            notes.append(f"{replica.address} cannot be reached: {replica.error}")
        for number, found in sorted(replica.versions.items()):
            labels = ",".join(sorted(k for k, v in replica.labels.items() if v == number))
            space = _manifest(replica.manifests.get(number), "vector_space") or "-"
            for bridged in _bridges(replica.manifests.get(number)):
                space += f", bridge to {bridged}"
            rows.append((replica.address, str(number), found.state, labels, space))
            if found.error_message:
                notes.append(f"{replica.address}, version {number}: {found.error_message}")
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for version, digests in status.fleet.mixed_versions().items():
        listed = "; ".join(
            f"{', '.join(names)}: {digest or 'none'}" for digest, names in digests.items()
        )
        notes.append(f"replicas serve different bytes as version {version} (manifests: {listed})")
    lines += notes + bridge_notes(status.fleet)
    lines += [f"not as the config says: {text}" for text in status.phase.differences]
    lines.append(status.phase.text)
    if status.phase.next:
        commands = ", or ".join(f"featurewire rollout {each}" for each in status.phase.next)
        lines.append(f"next: {commands}")
    return "\n".join(lines)


def _bridges(manifest: Manifest | None) -> dict[str, float]:
    return {} if manifest is None else dict(sorted(manifest.bridges.items()))


def _manifest(manifest: Any, name: str) -> str | None:
    return (getattr(manifest, name) or None) if manifest is not None else None
