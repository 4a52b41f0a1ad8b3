"""Accuracy of the full-size network by engine and precision, measured as in `accuracy`.

The stand-in has random weights, so its recall measures the arithmetic and not the quality of
search.
"""

from __future__ import annotations

from bench import models
from bench.parts.accuracy import engines_beside, module_of, views_of
from bench.parts.network import ENGINES, QUICK_ENGINES
from bench.results import Figure

PICTURES = 125


def measure(quick: bool) -> list[Figure]:
    return engines_beside(
        "The stand-in, random weights",
        module_of(models.module(), 299),
        models.stand_in_with,
        views_of(4 if quick else PICTURES),
        QUICK_ENGINES if quick else ENGINES,
    )
