"""The run of `featurewire status`: ask, show, and say whether the model answers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field

from featurewire import DeadlineExceededError, FeaturewireError, ModelStatus, VersionStatus
from featurewire._cli.arguments import CommandFailure, printable
from featurewire._cli.connection import connect

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
    def hopeless(self) -> bool:
        """Waiting is no use: the server has given up all versions that matter."""
        return bool(self._concerned) and all(version.failed for version in self._concerned)

    def labels_of(self, version: int) -> list[str]:
        return [label for label, labelled in self.labels.items() if labelled == version]


def show(args: argparse.Namespace) -> int:
    """Print the table or the object; 0 when the model (or the version asked for) is AVAILABLE."""
    try:
        report = ask(args, args.timeout) if args.wait is None else _wait(args)
    except FeaturewireError as exc:
        if args.json:
            print(json.dumps(_object(args, None) | {"error": str(exc)}))
        raise
    print(json.dumps(_object(args, report)) if args.json else table(report))
    if report.available:
        return 0
    if args.version is not None and args.version not in {each.version for each in report.versions}:
        raise CommandFailure(f"the server lists no version {args.version} of {args.model}")
    sys.stdout.flush()
    what = args.model if report.wanted is None else f"version {report.wanted} of {args.model}"
    raise CommandFailure(f"{what} is not AVAILABLE; wait for it with --wait SECONDS")


def ask(args: argparse.Namespace, seconds: float) -> Report:
    """One look at the server. Raises `FeaturewireError` when it has no answer in time."""
    deadline = time.monotonic() + seconds
    with connect(args, version=None, label=None, timeout=seconds) as client:
        status = client.status()
    # The one that was asked for first: the others may find no time left.
    names = dict.fromkeys((args.label, *LABELS) if args.label else LABELS)
    labels = _labels(args, status, list(names), deadline)
    wanted = args.version
    if args.label is not None:
        wanted = labels[args.label]
    labels = {name: labels[name] for name in sorted(labels, key=_label_order)}
    return Report(versions=status.versions, labels=labels, wanted=wanted)


def _label_order(name: str) -> int:
    return LABELS.index(name) if name in LABELS else len(LABELS)


def _labels(
    args: argparse.Namespace, status: ModelStatus, names: list[str], deadline: float
) -> dict[str, int]:
    """Which of the labels the server knows. The one that was asked for must be among them."""
    found = {}
    for name in names if status.available else []:
        left = max(deadline - time.monotonic(), 1e-3)
        with connect(args, version=None, label=name, timeout=left) as client:
            try:
                found[name] = client.metadata().version
            except FeaturewireError:
                if name == args.label:
                    raise
    if args.label is not None and args.label not in found:
        raise CommandFailure(
            f"no version of {args.model} is AVAILABLE, so label {args.label} cannot be looked up; "
            "wait for it with --wait SECONDS"
        )
    return found


def _wait(args: argparse.Namespace) -> Report:
    """Look until it is AVAILABLE, the server gives up, or the time is over."""
    deadline = time.monotonic() + args.wait
    seen: Report | Exception | None = None
    while (left := deadline - time.monotonic()) > 0 or seen is None:
        try:
            seen = ask(args, min(args.timeout, left))
            if seen.available or seen.hopeless:
                break
        except (FeaturewireError, CommandFailure) as exc:
            # The last look is cut short: its failure says less than the look before it.
            if seen is None or not isinstance(exc, DeadlineExceededError):
                seen = exc
        time.sleep(max(0.0, min(POLL_SECONDS, deadline - time.monotonic())))
    if isinstance(seen, Report):
        return seen
    raise seen


def table(report: Report) -> str:
    """The versions as columns of text."""
    rows = [["version", "state", "labels", "message"]]
    for each in report.versions:
        message = each.error_message or ("" if each.error_code == "OK" else each.error_code)
        labels = ", ".join(report.labels_of(each.version))
        rows.append([str(each.version), each.state, labels, printable(" ".join(message.split()))])
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for *cells, message in rows:
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append("  ".join((*padded, message)).rstrip())
    return "\n".join(lines)


def _object(args: argparse.Namespace, report: Report | None) -> dict[str, object]:
    return {
        "server": args.server,
        "model": args.model,
        "available": report is not None and report.available,
        "versions": [
            {
                "version": each.version,
                "state": each.state,
                "labels": report.labels_of(each.version) if report else [],
                "error_code": each.error_code,
                "error_message": each.error_message,
            }
            for each in (report.versions if report is not None else ())
        ],
    }
