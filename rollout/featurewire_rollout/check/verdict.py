"""From the measures to a verdict. Decides; measures nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from featurewire_rollout.check.bootstrap import unseen
from featurewire_rollout.check.measures import Measure
from featurewire_rollout.check.thresholds import Thresholds
from featurewire_rollout.spaces import retention

__all__ = ["EXIT_STATUS", "Space", "Verdict", "decide"]

Outcome = Literal["pass", "fail", "inconclusive"]
Space = Literal["same", "compatible", "new", "unknown"]
EXIT_STATUS: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 3}

OF_VECTORS = frozenset(
    ("cosine_median", "cosine_p5", "norm_ratio", "rank_correlation", "recall_loss")
)
NAMED = 3
BRIDGEABLE = 0.8
"""With such a rank correlation another space has kept much of the old one's order."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    outcome: Outcome
    space: Space
    text: str
    """One line: `same space`, `compatible within …`, `new space: rebuild the index`,
    `new space, bridged: retention R at 10 (here: …)`, `new space, and its bridge keeps too little
    here: …` or `inconclusive: N more images would tell`, and what
    else keeps the version from passing."""
    notes: tuple[str, ...] = ()
    fit: bool = True
    """Whether it is fast enough and takes the images, whatever its space is."""
    bridge: float | None = None
    """Of a new space that the version has a good bridge from: the share of recall@10 that this
    keeps, as its manifest says."""
    more_images: int | None = None
    """For an inconclusive one: about how many more images would decide it, where that helps."""


def decide(
    measures: list[Measure],
    thresholds: Thresholds,
    *,
    images: int,
    same_dimension: bool,
    spaces: tuple[str | None, str | None] = (None, None),
    bridge: float | None = None,
) -> Verdict:
    """`images`: those with a vector on both sides. `spaces`: the manifests' digests. `bridge`: what
    the canary's manifest says that its bridge to stable's space keeps, if it has one."""
    by_name = {each.name: each for each in measures}
    about_vectors = [each for each in measures if _of_vectors(each)]
    of_bridge = [each for each in measures if each.name.startswith("bridge_")]
    measures = [each for each in measures if each not in of_bridge]
    others = [each for each in measures if not _of_vectors(each) and each.outcome == "broken"]
    broken = [each for each in about_vectors if each.outcome == "broken"]
    still_open = [each for each in measures if each.outcome == "open"]
    declared_same = None not in spaces and spaces[0] == spaces[1]
    declared_other = None not in spaces and spaces[0] != spaces[1]
    notes = [_declared(spaces, same=not broken and same_dimension)]
    notes.append(_resolution(thresholds, images))

    if not same_dimension or broken:
        text = "new space: rebuild the index"
        text += f" ({_list(broken)})" if broken else " (the dimensions differ)"
        ranks = by_name.get("rank_correlation")
        bad = [each for each in of_bridge if each.outcome == "broken"]
        if bridge is not None and bad:
            text = f"new space, and its bridge keeps too little here: {_list(bad)}"
            notes.append(
                f"The manifest says {retention(bridge)}. Export the version again with a bridge "
                "that is made from pictures like these, or rebuild the index."
            )
            bridge = None
        elif bridge is not None:
            text = f"new space, bridged: {retention(bridge)}" + _measured(of_bridge)
            notes.append(
                "The retention was measured at the export. Clients that ask for stable's "
                "vector_space are answered through the bridge: promote with --accept-bridge."
            )
            if any(each.outcome == "open" for each in of_bridge):
                notes.append("This many images do not show whether the bridge keeps enough.")
        elif ranks is not None and ranks.interval.estimate >= BRIDGEABLE:
            notes.append("Much of the order of similarities is kept: a bridge may do.")
        return Verdict(
            outcome="fail",
            space="new",
            text=_with(text, others),
            notes=tuple(notes),
            fit=not others,
            bridge=bridge,
        )
    vectors_open = [each for each in still_open if _of_vectors(each)]
    known = "cosine_p5" in by_name and not vectors_open
    same = (
        known and not declared_other and by_name["cosine_p5"].interval.low >= thresholds.same_cosine
    )
    space: Space = "same" if same else "compatible" if known else "unknown"
    kept = "same space" if same else _within(by_name) if known else "the space is not sure"
    if others:
        return Verdict(
            outcome="fail", space=space, text=_with(kept, others), notes=tuple(notes), fit=False
        )
    if still_open or not known:
        wanted = [each.more_images for each in still_open]
        more = max((each for each in wanted if each is not None), default=None)
        if not measures:
            more = max(1, math.ceil(math.log(thresholds.error_rate) / math.log(0.95)) - images)
        elif None in wanted:
            notes.append(
                "More images would not help where a figure is as good as on its limit: "
                + _list([each for each in still_open if each.more_images is None])
            )
            more = None
        hope = f"{_rounded(more)} more images would tell" if more else "on the limit"
        return Verdict(
            outcome="inconclusive",
            space=space,
            text=f"inconclusive: {hope}" + (f" ({_list(still_open)})" if still_open else ""),
            notes=tuple(notes),
            more_images=None if more is None else _rounded(more),
        )
    if same and declared_same:
        kept += ", as the manifests say"
    return Verdict(outcome="pass", space=space, text=kept, notes=tuple(notes))


def _measured(of_bridge: list[Measure]) -> str:
    """What the bridge did with the images of the check."""
    figures = {each.name.removeprefix("bridge_"): each.interval.estimate for each in of_bridge}
    named = [
        f"{name.replace('_at_', '@')} {figure:.2f}"
        for name, figure in figures.items()
        if name.startswith(("recall_at_", "overlap_at_"))
    ]
    return f" (here: {', '.join(named)})" if named else ""


def _of_vectors(measure: Measure) -> bool:
    return measure.name in OF_VECTORS or measure.name.startswith("overlap_at_")


def _within(by_name: dict[str, Measure]) -> str:
    """The sure end of the interval, not the estimate: what may be relied on."""
    parts = [f"a cosine of {_down(by_name['cosine_p5'].interval.low)} for 95 % of images"]
    for measure in by_name.values():
        if measure.name.startswith("overlap_at_"):
            lost = 1 - measure.interval.low
            parts.append(f"{math.ceil(lost * 1000) / 10:g} % of neighbours")
    return "compatible within " + " and ".join(parts)


def _down(cosine: float) -> str:
    return f"{math.floor(cosine * 10000) / 10000:.4f}"


def _declared(spaces: tuple[str | None, str | None], *, same: bool) -> str:
    if None in spaces:
        return "A version without a manifest declares no vector space: the verdict is measured."
    if spaces[0] == spaces[1]:
        if same:
            return "Both manifests name the same vector space."
        return "Both manifests name the same vector space, and what was measured contradicts them."
    if same:
        return (
            "The manifests name different vector spaces; what was measured is how far they agree."
        )
    return "The manifests name different vector spaces."


def _resolution(thresholds: Thresholds, images: int) -> str:
    if images < 1:
        return "No image has a vector from both versions."
    share = unseen(images, thresholds.error_rate)
    return (
        f"The smallest effect that {images} images can show: what changes fewer than "
        f"{100 * share:.2g} % of images can stay unseen. Each measure names its own."
    )


def _with(text: str, others: list[Measure]) -> str:
    return f"{text}; not fit to serve: {_list(others)}" if others else text


def _list(measures: list[Measure]) -> str:
    """The first three; the report has them all."""
    named = "; ".join(f"{each.title} {each.interval.estimate:.4g}" for each in measures[:NAMED])
    return named + (f"; and {len(measures) - NAMED} more" if len(measures) > NAMED else "")


def _rounded(count: int) -> int:
    """Up to two digits: it is an estimate."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / step) * step
