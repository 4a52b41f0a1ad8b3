"""The figures of a run, as they stand in the result file.

A part gives figures; `as_json` adds median, spread and the ratios to the peers that the figures
name. Everything that is printed or quoted is read from the file.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
LATEST = Path(__file__).resolve().parent / "results" / "latest.json"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One quantity, measured once or several times."""

    table: str
    """The table of its part where it stands."""
    name: str
    """Its row there; peers are named by it."""
    unit: str
    values: list[float]
    """One for each round; those of one round were measured directly after each other."""
    peers: Mapping[str, str] = field(default_factory=dict)
    """Title of a ratio, and the name of the figure in the same table that it is measured by."""
    more: Mapping[str, float | str] = field(default_factory=dict)
    """Further columns: title and what stands there."""


def as_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Raises KeyError if a peer is not there."""
    figures = list(figures)
    by_name = {(figure.table, figure.name): figure for figure in figures}
    return [
        {
            "table": figure.table,
            "name": figure.name,
            "unit": figure.unit,
            **_spread(figure.values),
            "values": figure.values,
            "ratios": {
                title: {"peer": peer, **_spread(_ratios(figure, by_name[figure.table, peer]))}
                for title, peer in figure.peers.items()
            },
            "more": dict(figure.more),
        }
        for figure in figures
    ]


def _ratios(figure: Figure, peer: Figure) -> list[float]:
    """Round by round: a machine's speed drifts by more than two figures of one round differ."""
    if len(figure.values) == len(peer.values):
        pairs = zip(figure.values, peer.values, strict=True)
        return [value / other for value, other in pairs]
    middle = statistics.median(peer.values)
    return [value / middle for value in figure.values]


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def load(path: Path) -> dict[str, Any]:
    """The parts by name; none if there is no file."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text())
    if found["format"] != FORMAT:
        raise ValueError(f"{path} has format {found['format']}, not {FORMAT}; measure again")
    parts: dict[str, Any] = found["parts"]
    return parts


def read_figures(path: Path) -> list[dict[str, Any]]:
    """What `as_json` gave, from a file."""
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def save(path: Path, parts: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps({"format": FORMAT, "parts": parts}), parse_float=_rounded)
    path.write_text(json.dumps(rounded, indent=1) + "\n")


def _rounded(text: str) -> float:
    """Six digits: more is noise, and makes differences hard to read."""
    return float(f"{float(text):.6g}")
