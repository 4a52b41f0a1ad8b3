"""What an engine and a precision do to the vectors of the large network, as `accuracy` measures it.

The stand-in has random weights, so its recall says how faithful the arithmetic is and nothing about
pictures.
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
