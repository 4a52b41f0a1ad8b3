"""After a promotion: the new and the old version side by side, for a while."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from featurewire import Client, FeaturewireError, ImageError

__all__ = ["Probes", "WatchConfig", "fault_of", "watch"]


PROBE_IMAGES = 32
"""Maximum number of images that the probes send in turn."""
MAX_LATENCY_RATIO = 2.0
"""A few probes scatter more than a check's images, so this is wider than its limit."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """How long to watch, and what is too much."""

    seconds: float = 60.0
    interval: float = 0.2
    """Seconds between two pairs of probes."""
    max_error_increase: float = 0.02
    """Of the share of probes without a vector, over the old version's."""
    max_latency_ratio: float = MAX_LATENCY_RATIO
    """Of the median latencies, new to old."""


@dataclass
class Probes:
    """What probing one version gave."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, of the probes that had an answer."""
    errors: list[str] = field(default_factory=list)

    @property
    def error_share(self) -> float:
        count = len(self.latencies) + len(self.errors)
        return len(self.errors) / count if count else 0.0


def fault_of(new: Probes, old: Probes, config: WatchConfig) -> str:
    """Why the new version must not stay, in words; empty: it may."""
    if not new.latencies:
        return f"no probe of the new version had an answer ({(new.errors or ['none sent'])[-1]})"
    rise = new.error_share - old.error_share
    if rise > config.max_error_increase:
        return (
            f"{new.error_share:.1%} of the probes failed, {old.error_share:.1%} with the old "
            f"version ({new.errors[-1]})"
        )
    if old.latencies:
        ratio = statistics.median(new.latencies) / max(statistics.median(old.latencies), 1e-6)
        if ratio > config.max_latency_ratio:
            return f"the latency is {ratio:.1f} times the old version's, in the median"
    return ""


def watch(new: Client, old: Client, images: Sequence[bytes], config: WatchConfig) -> str:
    """Probe both versions in turns until the time is up; why the new one must go, or nothing."""
    probes = {id(new): Probes(), id(old): Probes()}
    until, sent = time.monotonic() + config.seconds, 0
    while time.monotonic() < until or not sent:
        for client in (new, old) if sent % 2 else (old, new):
            _probe(client, images[sent % len(images)], probes[id(client)])
        sent += 1
        # So soon only when nothing works at all.
        if sent >= 10 and not probes[id(new)].latencies:
            break
        time.sleep(config.interval)
    return fault_of(probes[id(new)], probes[id(old)], config)


def _probe(client: Client, image: bytes, probes: Probes) -> None:
    begin = time.monotonic()
    try:
        client.embed(image)
    except ImageError as error:
        probes.errors.append(f"image: {error.reason}")
    except FeaturewireError as error:
        probes.errors.append(" ".join(str(error).split()))
    else:
        probes.latencies.append(time.monotonic() - begin)
