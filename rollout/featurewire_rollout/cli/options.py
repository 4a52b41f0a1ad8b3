"""The options of `featurewire rollout`: one parser with one subcommand per step."""

from __future__ import annotations

import argparse

from featurewire.plugin.arguments import CommandParser, positive_int, positive_seconds
from featurewire.plugin.credentials import add_credentials, apply_credentials

STEPS = {
    "status": "show the state of every replica, the phase of the rollout and the next command",
    "start": "load a version next to the current one and label it canary",
    "check": "compare the vectors of stable and canary for the same images",
    "promote": "move stable to the version on trial",
    "rollback": "move stable and canary back to the old version",
    "retire": "unload versions without a label",
    "run": "start, check, promote, watch, and roll back automatically",
}


def rollout_parser() -> CommandParser:
    """The options of `featurewire rollout`."""
    parser = CommandParser(
        "featurewire rollout",
        "Move a fleet from one model version to the next. Exit status 0 done, 1 failed, "
        "2 wrong usage, 3 inconclusive (check and run).",
    )
    steps = parser.add_subparsers(
        dest="step", required=True, metavar="STEP", parser_class=CommandParser
    )
    for name, text in STEPS.items():
        description = text[0].upper() + text[1:] + "."
        step = steps.add_parser(name, help=text, description=description)
        step.set_defaults(parser=step)
        _add_options(step, name)
    return parser


def parse(argv: list[str]) -> tuple[CommandParser, argparse.Namespace]:
    """The step's parser, to report further errors of usage, and the options."""
    args = rollout_parser().parse_args(argv)
    args.from_environment = apply_credentials(args.parser, args)
    return args.parser, args


def _add_options(step: CommandParser, name: str) -> None:
    step.add_argument(
        "--config",
        metavar="FILE",
        required=name not in ("status", "check"),
        help="the models.config that the replicas read: a file, or configmap:NAMESPACE/NAME/KEY",
    )
    step.add_argument(
        "--server",
        dest="servers",
        action="append",
        required=True,
        metavar="HOST:PORT",
        help="a replica; repeat it for several, or give a name that resolves to all of them",
    )
    step.add_argument("--model", required=True, metavar="NAME")
    if name != "status":
        step.add_argument(
            "--version",
            type=positive_int,
            metavar="N",
            required=name in ("start", "run"),
            help="refuse if another one is on trial" if name == "check" else None,
        )
    step.add_argument("--json", action="store_true", help="print one JSON object")
    add_credentials(step)
    if name == "status":
        return
    _add_patience(step)
    step.add_argument(
        "--audit", metavar="FILE", help="append JSON lines about each step to this file"
    )
    if name != "check":
        step.add_argument(
            "--trust-config",
            action="store_true",
            help="continue even if the replicas do not seem to read this config",
        )
    if name in ("promote", "run"):
        step.add_argument(
            "--accept-new-space",
            action="store_true",
            help="promote even if new and old vectors cannot be compared",
        )
        step.add_argument(
            "--accept-bridge",
            action="store_true",
            help="promote a new space if the version has a bridge to the old one",
        )
    if name in ("start", "run"):
        step.add_argument(
            "--base-path", metavar="DIR", help="folder of the versions on this machine"
        )
        step.add_argument(
            "--no-memory-check",
            dest="memory_check",
            action="store_false",
            help="load even if memory seems too small",
        )
    if name in ("check", "run"):
        from featurewire_rollout.cli.check_options import add_check_options

        add_check_options(step)
    if name == "run":
        step.add_argument(
            "--watch",
            type=positive_seconds,
            default=60.0,
            metavar="SECONDS",
            help="how long to watch the promoted version (default: %(default)g)",
        )


def _add_patience(step: CommandParser) -> None:
    step.add_argument(
        "--timeout",
        type=positive_seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for replicas to answer, load or show a label (default: %(default)g)",
    )
    step.add_argument(
        "--allow-missing",
        type=_count,
        default=0,
        metavar="K",
        help="continue if up to K replicas do not answer",
    )
    step.add_argument(
        "--poll-only",
        dest="reload",
        action="store_false",
        help="do not send reloads, because the replicas poll the config",
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)
