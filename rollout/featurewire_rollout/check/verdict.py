"""The verdict on a version, from its measures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from featurewire_rollout.check.bootstrap import unseen
from featurewire_rollout.check.measures import TAIL_FRACTION, Measure
from featurewire_rollout.check.thresholds import Thresholds
from featurewire_rollout.decide.spaces import retention

Outcome = Literal["pass", "fail", "inconclusive"]
Space = Literal["same", "compatible", "new", "unknown"]
Declared = Literal["same", "different", "unknown"]
EXIT_STATUS: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 3}

VECTOR_MEASURES = frozenset(
    ("cosine_median", "cosine_p5", "norm_ratio", "rank_correlation", "recall_loss")
)
MAX_NAMED = 3
BRIDGEABLE_CORRELATION = 0.8
"""Minimum rank correlation at which a bridge between two spaces is worth a try."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    outcome: Outcome
    space: Space
    text: str
    """One line: `same space`, `compatible within …`, `new space: rebuild the index`,
    `new space, bridged: retention R at 10 (here: …)`, `new space, and its bridge keeps too little
    here: …` or `inconclusive: N more images would tell`, and other reasons against the version."""
    notes: tuple[str, ...] = ()
    fit: bool = True
    """Whether latency and errors allow the version, in any vector space."""
    bridge: float | None = None
    """The fraction of recall@10 that the bridge of a new space keeps, from the manifest. None if
    the space is not new, or the bridge is missing or bad."""
    more_images: int | None = None
    """Estimate of how many more images would decide an inconclusive verdict; None if none would."""


def decide(
    measures: list[Measure],
    thresholds: Thresholds,
    *,
    images: int,
    same_dimension: bool,
    spaces: tuple[str | None, str | None] = (None, None),
    bridge: float | None = None,
) -> Verdict:
    """Decide whether the canary passes, fails, or needs more images to tell.

    `images`: number of images with a vector from both versions. `spaces`: the vector spaces that
    the manifests of stable and canary declare. `bridge`: the share of recall@10 that the canary's
    bridge to stable's space keeps according to its manifest; None without such a bridge.
    """
    native = [each for each in measures if not each.name.startswith("bridge_")]
    bridged = [each for each in measures if each.name.startswith("bridge_")]
    vectors = [each for each in native if _of_vectors(each)]
    unfit = _having("broken", [each for each in native if not _of_vectors(each)])
    still_open = _having("open", native)
    declared = _declared(spaces)
    space = _space(vectors, declared, thresholds, same_dimension=same_dimension)
    notes = [_declared_note(declared, contradicted=space == "new")]
    notes.append(_resolution(thresholds, images))

    outcome: Outcome = "pass"
    more = kept = None
    if space == "new":
        outcome = "fail"
        text, new_notes = _new_space(vectors, bridged, bridge)
        notes += new_notes
        kept = None if _having("broken", bridged) else bridge
    elif unfit:
        outcome = "fail"
        text = _comparison(space, vectors)
    elif still_open or space == "unknown":
        outcome = "inconclusive"
        more = _more_images(still_open, thresholds, images=images, measured=bool(native))
        text, open_notes = _undecided(still_open, more)
        notes += open_notes
    else:
        text = _comparison(space, vectors)
        if space == "same" and declared == "same":
            text += ", as the manifests say"
    if unfit:
        text += f"; not fit to serve: {_list(unfit)}"
    return Verdict(
        outcome=outcome,
        space=space,
        text=text,
        notes=tuple(notes),
        fit=not unfit,
        bridge=kept,
        more_images=more,
    )


def _having(outcome: str, measures: list[Measure]) -> list[Measure]:
    return [each for each in measures if each.outcome == outcome]


def _of_vectors(measure: Measure) -> bool:
    return measure.name in VECTOR_MEASURES or measure.name.startswith("overlap_at_")


def _declared(spaces: tuple[str | None, str | None]) -> Declared:
    """Compare the vector spaces that the two manifests declare."""
    if None in spaces:
        return "unknown"
    return "same" if spaces[0] == spaces[1] else "different"


def _space(
    vectors: list[Measure], declared: Declared, thresholds: Thresholds, *, same_dimension: bool
) -> Space:
    """Decide from the measures of vectors whether the canary's space is still stable's."""
    if not same_dimension or _having("broken", vectors):
        return "new"
    cosine = next((each for each in vectors if each.name == "cosine_p5"), None)
    if cosine is None or _having("open", vectors):
        return "unknown"
    if declared != "different" and cosine.interval.low >= thresholds.same_cosine:
        return "same"
    return "compatible"


def _more_images(
    still_open: list[Measure], thresholds: Thresholds, *, images: int, measured: bool
) -> int | None:
    """About how many more images would decide; None if no number of them would."""
    if not measured:
        needed = math.ceil(math.log(thresholds.error_rate) / math.log(1 - TAIL_FRACTION))
        return _rounded(max(1, needed - images))
    wanted = [each.more_images for each in still_open]
    known = [each for each in wanted if each is not None]
    return _rounded(max(known)) if known and len(known) == len(wanted) else None


# The functions below decide nothing: they write the texts.


def _new_space(
    vectors: list[Measure], bridged: list[Measure], bridge: float | None
) -> tuple[str, list[str]]:
    """The line and the notes for a new space, which the canary may have a bridge to."""
    if bridge is None:
        broken = _having("broken", vectors)
        text = f"new space: rebuild the index ({_list(broken) or 'the dimensions differ'})"
        ranks = [each for each in vectors if each.name == "rank_correlation"]
        if ranks and ranks[0].interval.estimate >= BRIDGEABLE_CORRELATION:
            return text, ["Much of the order of similarities is kept, so a bridge may work."]
        return text, []
    if broken := _having("broken", bridged):
        return f"new space, and its bridge keeps too little here: {_list(broken)}", [
            f"The manifest says {retention(bridge)}. Export the version again with a bridge that "
            "is made from pictures like these, or rebuild the index."
        ]
    notes = [
        "The retention was measured at the export. Clients that ask for stable's vector_space are "
        "answered through the bridge: promote with --accept-bridge."
    ]
    if _having("open", bridged):
        notes.append("This many images do not show whether the bridge keeps enough.")
    return f"new space, bridged: {retention(bridge)}{_measured(bridged)}", notes


def _undecided(still_open: list[Measure], more: int | None) -> tuple[str, list[str]]:
    """The line and the notes for measures that span their limits."""
    hope = f"{more} more images would tell" if more else "on the limit"
    text = f"inconclusive: {hope}" + (f" ({_list(still_open)})" if still_open else "")
    hopeless = [each for each in still_open if each.more_images is None]
    if not hopeless:
        return text, []
    return text, [
        "More images would not help, because these figures are on their limits: " + _list(hopeless)
    ]


def _comparison(space: Space, vectors: list[Measure]) -> str:
    if space == "compatible":
        return _within(vectors)
    return "same space" if space == "same" else "the space is uncertain"


def _measured(of_bridge: list[Measure]) -> str:
    """The bridge's figures for the images of the check, in brackets."""
    figures = {each.name.removeprefix("bridge_"): each.interval.estimate for each in of_bridge}
    named = [
        f"{name.replace('_at_', '@')} {figure:.2f}"
        for name, figure in figures.items()
        if name.startswith(("recall_at_", "overlap_at_"))
    ]
    return f" (here: {', '.join(named)})" if named else ""


def _within(vectors: list[Measure]) -> str:
    """The bounds of the intervals, because the estimates are not certain."""
    parts = []
    for measure in vectors:
        low = measure.interval.low
        if measure.name == "cosine_p5":
            parts.append(f"a cosine of {_down(low)} for 95 % of images")
        elif measure.name.startswith("overlap_at_"):
            parts.append(f"a loss of {math.ceil((1 - low) * 1000) / 10:g} % of neighbours")
    return "compatible within " + " and ".join(parts)


def _down(cosine: float) -> str:
    return f"{math.floor(cosine * 10000) / 10000:.4f}"


def _declared_note(declared: Declared, *, contradicted: bool) -> str:
    """One sentence about the manifests. `contradicted`: the measured space is new."""
    if declared == "unknown":
        return "A version without a manifest declares no vector space, so only the measures count."
    if declared == "same":
        return "Both manifests name the same vector space" + (
            ", and the measures contradict them." if contradicted else "."
        )
    return "The manifests name different vector spaces" + (
        "." if contradicted else "; the measures show how far they agree."
    )


def _resolution(thresholds: Thresholds, images: int) -> str:
    if images < 1:
        return "No image has a vector from both versions."
    share = unseen(images, thresholds.error_rate)
    return (
        f"With {images} images, a change in fewer than {100 * share:.2g} % of images can stay "
        "unseen. Each measure has its own smallest effect."
    )


def _list(measures: list[Measure]) -> str:
    """Titles and estimates of the first three; the report lists all."""
    named = "; ".join(f"{each.title} {each.interval.estimate:.4g}" for each in measures[:MAX_NAMED])
    return named + (f"; and {len(measures) - MAX_NAMED} more" if len(measures) > MAX_NAMED else "")


def _rounded(count: int) -> int:
    """Rounded up to two digits, because the number is an estimate."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / step) * step
