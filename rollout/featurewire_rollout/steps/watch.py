"""Compare latency and errors of the new and the old version after a promotion."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from featurewire import Client, FeaturewireError, ImageError

PROBE_IMAGES = 32
"""Maximum number of images that the probes send in turn."""
MAX_LATENCY_RATIO = 2.0
"""Default limit of the latency ratio. It is wider than that of a check, because a few probes vary
more than a check's images."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """Duration and limits of the watch."""

    seconds: float = 60.0
    interval: float = 0.2
    """Seconds between two pairs of probes."""
    max_error_increase: float = 0.02
    """Maximum increase of the fraction of failed probes over the old version's."""
    max_latency_ratio: float = MAX_LATENCY_RATIO
    """Maximum ratio of the new median latency to the old one."""


@dataclass
class Probes:
    """Results of the probes of one version."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, of successful probes."""
    errors: list[str] = field(default_factory=list)

    @property
    def error_share(self) -> float:
        count = len(self.latencies) + len(self.errors)
        return len(self.errors) / count if count else 0.0


def fault_of(new: Probes, old: Probes, config: WatchConfig) -> str:
    """Why the new version must go, in words; empty if it may stay."""
    if not new.latencies:
        return f"no probe of the new version succeeded ({(new.errors or ['none sent'])[-1]})"
    rise = new.error_share - old.error_share
    if rise > config.max_error_increase:
        return (
            f"{new.error_share:.1%} of the probes failed, {old.error_share:.1%} with the old "
            f"version ({new.errors[-1]})"
        )
    if old.latencies:
        ratio = statistics.median(new.latencies) / max(statistics.median(old.latencies), 1e-6)
        if ratio > config.max_latency_ratio:
            return f"the median latency is {ratio:.1f} times the old version's"
    return ""


def watch(new: Client, old: Client, images: Sequence[bytes], config: WatchConfig) -> str:
    """Probe both versions in turn until the time is up. Returns `fault_of` the results."""
    probes = {id(new): Probes(), id(old): Probes()}
    until, sent = time.monotonic() + config.seconds, 0
    while time.monotonic() < until or not sent:
        for client in (new, old) if sent % 2 else (old, new):
            _probe(client, images[sent % len(images)], probes[id(client)])
        sent += 1
        # Stop early only if every probe of the new version has failed.
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
