"""The output and the exit status of `featurewire status`."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from featurewire import FeaturewireError
from featurewire._cli.availability import LABELS, Report, ask, wait
from featurewire._cli.connection import connect
from featurewire._cli.progress import Screen
from featurewire._cli.text import printable
from featurewire.plugin.arguments import CommandFailure
from featurewire.plugin.wording import cli_message


def show(args: argparse.Namespace) -> int:
    """Print the table or the JSON object; 0 if the model (or the wanted version) is AVAILABLE.

    Raises `CommandFailure` if it is not.
    """
    try:
        with connect(args) as client, Screen("featurewire status") as screen:
            if args.wait is None:
                report = ask(client, args, args.timeout, labels=LABELS)
            else:
                show = partial(screen.wait, lines=False)
                report = wait(client, args, args.wait, labels=LABELS, on_look=show)
    except FeaturewireError as error:
        text = cli_message(error)
        if args.json:
            print(json.dumps(_object(args, None) | {"error": text}))
        raise CommandFailure(text) from error
    print(json.dumps(_object(args, report)) if args.json else table(report))
    if report.available:
        return 0
    sys.stdout.flush()
    failure = report.failure(args.model)
    raise CommandFailure(
        f"{failure}; wait for it with --wait SECONDS" if report.listed else failure
    )


def table(report: Report) -> str:
    """The versions as a table of text."""
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
