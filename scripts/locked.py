"""Print the part of requirements.txt that some distributions and packages need, hashes included.

    python scripts/locked.py client server openvino

A name is a folder of this repository or a package. The output is complete: install it with
`pip install --require-hashes --no-deps`. The dependencies come from the `# via` comments that
`make lock` writes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

DISTRIBUTIONS = {
    "client": "featurewire",
    "exporter": "featurewire-exporter",
    "rollout": "featurewire-rollout",
    "server": "featurewire-server",
}


class Pin(NamedTuple):
    """One package of the file."""

    name: str
    lines: str
    """`name==version` with its marker and hashes."""
    needed_by: frozenset[str]
    """Packages and distributions that require it directly."""


def pins(text: str) -> Iterator[Pin]:
    for entry in re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]:
        lines, _, comment = entry.partition("    # via")
        parents = re.findall(r"^(?: |    #   )(\S+)$", comment, flags=re.MULTILINE)
        yield Pin(entry.partition("==")[0], lines.rstrip(), frozenset(parents))


def closure(text: str, names: Sequence[str]) -> list[Pin]:
    """The pins of `names` and of everything that these require, in the order of the file."""
    every = list(pins(text))
    wanted = {DISTRIBUTIONS.get(name, name) for name in names}
    if unknown := wanted - set(DISTRIBUTIONS.values()) - {pin.name for pin in every}:
        raise SystemExit(f"locked: requirements.txt has no {', '.join(sorted(unknown))}")
    while found := {p.name for p in every if p.name not in wanted and p.needed_by & wanted}:
        wanted |= found
    return [pin for pin in every if pin.name in wanted]


def main(names: Sequence[str]) -> None:
    text = (Path(__file__).resolve().parents[1] / "requirements.txt").read_text()
    print("\n".join(pin.lines for pin in closure(text, names)))


if __name__ == "__main__":
    main(sys.argv[1:])
