"""Ask whether a model is AVAILABLE, with its versions and labels: once, or until it is."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from featurewire import Client, DeadlineExceededError, FeaturewireError, VersionStatus
from featurewire._cli.progress import duration
from featurewire._wire.status import describe
from featurewire.plugin.arguments import CommandFailure

LABELS = ("stable", "canary")
"""Labels to look up. No call of the API lists labels, and rollouts use these two."""

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Report:
    """A model's versions and labels. `wanted` is the version that must be AVAILABLE; None: any."""

    versions: tuple[VersionStatus, ...]
    labels: dict[str, int] = field(default_factory=dict)
    wanted: int | None = None

    @property
    def _concerned(self) -> list[VersionStatus]:
        return [each for each in self.versions if self.wanted in (None, each.version)]

    @property
    def available(self) -> bool:
        return any(version.available for version in self._concerned)

    @property
    def listed(self) -> bool:
        """Whether the server lists the wanted version; True if any version will do."""
        return self.wanted is None or bool(self._concerned)

    @property
    def hopeless(self) -> bool:
        """Whether the server has given up on every wanted version, so that waiting is pointless."""
        return bool(self._concerned) and all(version.failed for version in self._concerned)

    def failure(self, model: str) -> str:
        """Error text: why the model is not AVAILABLE."""
        if not self.listed:
            return f"the server lists no version {self.wanted} of {model}"
        what = model if self.wanted is None else f"version {self.wanted} of {model}"
        return f"{what} is not AVAILABLE"

    def states(self) -> str:
        """States of the wanted versions, newest first, such as `version 2 is LOADING`."""
        return describe(self._concerned)

    def labels_of(self, version: int) -> list[str]:
        return [label for label, labelled in self.labels.items() if labelled == version]


def ask(
    client: Client, args: argparse.Namespace, seconds: float, *, labels: Sequence[str] = ()
) -> Report:
    """Ask the server once. Raises `FeaturewireError` if it does not answer in time.

    Looks up `--label`, which the server must know, and each of `labels` if the server knows it.
    """
    deadline = time.monotonic() + seconds
    status = client.with_options(version=None, label=None, timeout=seconds).status()
    found = {}
    # Look up `--label` first, because there may be no time left for the others.
    for name in dict.fromkeys((args.label or "", *labels)) if status.available else ():
        left = max(deadline - time.monotonic(), 1e-3)
        try:
            if name:
                found[name] = client.with_options(label=name, timeout=left).metadata().version
        except FeaturewireError:
            if name == args.label:
                raise
    if args.label is not None and args.label not in found:
        raise CommandFailure(
            f"no version of {args.model} is AVAILABLE, so label {args.label} cannot be looked up; "
            "wait for it with --wait SECONDS"
        )
    return Report(
        versions=status.versions,
        labels={name: found[name] for name in (*labels, args.label) if name in found},
        wanted=args.version if args.label is None else found[args.label],
    )


def wait(
    client: Client,
    args: argparse.Namespace,
    seconds: float,
    *,
    labels: Sequence[str] = (),
    on_look: Callable[[str], None],
) -> Report:
    """Poll until the model is AVAILABLE, the server gives up, or the time is over.

    Calls `on_look` with a status line after each poll. Returns the last report, or raises the last
    poll's error if that poll gave no report.
    """
    began = time.monotonic()
    deadline = began + seconds
    seen: Report | Exception | None = None
    while (left := deadline - time.monotonic()) > 0 or seen is None:
        try:
            seen = ask(client, args, min(args.timeout, left), labels=labels)
            if seen.available or seen.hopeless:
                break
        except (FeaturewireError, CommandFailure) as error:
            # The deadline cuts the last poll short, so the result before it says more.
            if seen is None or not isinstance(error, DeadlineExceededError):
                seen = error
        state = seen.states() if isinstance(seen, Report) else "the server does not answer"
        if isinstance(seen, CommandFailure):
            state = f"no version has label {args.label}"
        waited = f"{duration(time.monotonic() - began)} of {duration(seconds)}"
        on_look(f"waiting for {args.model}: {state or 'no version is listed'}, {waited}")
        time.sleep(max(0.0, min(POLL_SECONDS, deadline - time.monotonic())))
    if isinstance(seen, Report):
        return seen
    raise seen
