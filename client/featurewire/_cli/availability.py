"""Whether a model answers: one look at its versions and labels, or looks until it does."""

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
"""Labels to ask for: no call lists them, these are the ones that rollouts use."""

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Report:
    """The versions of a model and their labels; `wanted` is the one that must be AVAILABLE."""

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
        """The server lists the version that was asked for, or no certain one was."""
        return self.wanted is None or bool(self._concerned)

    @property
    def hopeless(self) -> bool:
        """Waiting is no use: the server has given up all versions that matter."""
        return bool(self._concerned) and all(version.failed for version in self._concerned)

    def failure(self, model: str) -> str:
        """Why it is not AVAILABLE."""
        if not self.listed:
            return f"the server lists no version {self.wanted} of {model}"
        what = model if self.wanted is None else f"version {self.wanted} of {model}"
        return f"{what} is not AVAILABLE"

    def states(self) -> str:
        """`version 2 is LOADING`: those that matter, the newest first."""
        return describe(self._concerned)

    def labels_of(self, version: int) -> list[str]:
        return [label for label, labelled in self.labels.items() if labelled == version]


def ask(
    client: Client, args: argparse.Namespace, seconds: float, *, labels: Sequence[str] = ()
) -> Report:
    """One look at the server. Raises `FeaturewireError` when it has no answer in time.

    `labels` are looked up beside the one that was asked for, which must be among the server's.
    """
    deadline = time.monotonic() + seconds
    status = client.with_options(version=None, label=None, timeout=seconds).status()
    found = {}
    # The one that was asked for first: the others may find no time left.
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
    """Look until it is AVAILABLE, the server gives up, or the time is over; the last report.

    `on_look` gets a line after each look. Raises what the last look raised, if it gave no report.
    """
    began = time.monotonic()
    deadline = began + seconds
    seen: Report | Exception | None = None
    while (left := deadline - time.monotonic()) > 0 or seen is None:
        try:
            seen = ask(client, args, min(args.timeout, left), labels=labels)
            if seen.available or seen.hopeless:
                break
        except (FeaturewireError, CommandFailure) as exc:
            # The last look is cut short: its failure says less than the look before it.
            if seen is None or not isinstance(exc, DeadlineExceededError):
                seen = exc
        state = seen.states() if isinstance(seen, Report) else "it does not answer"
        if isinstance(seen, CommandFailure):
            state = f"label {args.label} leads to no version"
        waited = f"{duration(time.monotonic() - began)} of {duration(seconds)}"
        on_look(f"waiting for {args.model}: {state or 'no version is listed'}, {waited}")
        time.sleep(max(0.0, min(POLL_SECONDS, deadline - time.monotonic())))
    if isinstance(seen, Report):
        return seen
    raise seen
