"""The figures of a run and the result file.

Parts return figures, and `as_json` adds the median, the spread and the ratios to their peers.
Everything that is printed or quoted is read from the file.
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
    """Title of its table in the part."""
    name: str
    """Title of its row, by which other figures name it as a peer."""
    unit: str
    values: list[float]
    """One value per round. The figures of a round were measured directly after each other."""
    peers: Mapping[str, str] = field(default_factory=dict)
    """Ratios to other figures of the same table: title of the ratio, and name of the figure."""
    more: Mapping[str, float | str] = field(default_factory=dict)
    """Further columns: title and content."""


def as_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """The figures as JSON objects. Raises KeyError if a peer is missing."""
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
    """Ratios per round, because the machine's speed drifts between rounds."""
    if len(figure.values) == len(peer.values):
        pairs = zip(figure.values, peer.values, strict=True)
        return [value / other for value, other in pairs]
    middle = statistics.median(peer.values)
    return [value / middle for value in figure.values]


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def load(path: Path) -> dict[str, Any]:
    """The parts by name; empty if the file does not exist."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text())
    if found["format"] != FORMAT:
        raise ValueError(f"{path} has format {found['format']}, not {FORMAT}; measure again")
    parts: dict[str, Any] = found["parts"]
    return parts


def read_figures(path: Path) -> list[dict[str, Any]]:
    """Read the result of `as_json` from a file."""
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def save(path: Path, parts: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps({"format": FORMAT, "parts": parts}), parse_float=_rounded)
    path.write_text(json.dumps(rounded, indent=1) + "\n")


def _rounded(text: str) -> float:
    """Round to six digits: more are noise and make differences hard to read."""
    return float(f"{float(text):.6g}")
