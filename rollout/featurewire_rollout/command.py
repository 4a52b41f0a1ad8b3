"""`featurewire rollout`: run the step that the options name, and print the result."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from featurewire.plugin.arguments import quiet_grpc
from featurewire.plugin.wording import cli_message
from featurewire_rollout.cli.options import parse, rollout_parser

if TYPE_CHECKING:
    from featurewire_rollout.check import CheckConfig
    from featurewire_rollout.config import RolloutConfig
    from featurewire_rollout.decide.phase import Status
    from featurewire_rollout.steps.rollout import Rollout

__all__ = ["rollout", "rollout_parser"]


def rollout(argv: list[str]) -> int:
    """Move a fleet between model versions: start, check, promote, rollback, retire."""
    parser, args = parse(argv)
    quiet_grpc()

    from featurewire import ConfigError
    from featurewire.plugin.interrupts import interruptible
    from featurewire_rollout.steps.rollout import Rollout

    check = None
    if args.step in ("check", "run"):
        from featurewire_rollout.cli.check_options import check_config

        check = check_config(parser, args)
    try:
        made = Rollout(_config(args), say=_say)
    except ConfigError as error:
        parser.error(cli_message(error, args.from_environment))
    with interruptible(), made:
        if check is None:
            return _step(made, args)
        return _check(made, args, check) if args.step == "check" else _run(made, args, check)


def _step(made: Rollout, args: argparse.Namespace) -> int:
    """`status`, `start`, `promote`, `rollback` and `retire`."""
    if args.step == "status":
        status = made.status()
    elif args.step == "promote":
        status = made.promote(
            args.version, accept_new_space=args.accept_new_space, accept_bridge=args.accept_bridge
        )
    else:
        steps = {"start": made.start, "rollback": made.rollback, "retire": made.retire}
        status = steps[args.step](args.version)
    _print_status(status, args)
    doubtful = status.fleet.missing or status.phase.name == "wrong config"
    return 1 if args.step == "status" and doubtful else 0


def _check(made: Rollout, args: argparse.Namespace, check: CheckConfig) -> int:
    from featurewire_rollout.check import CheckError, to_json, to_text
    from featurewire_rollout.check.pull import images_in
    from featurewire_rollout.cli.check_options import check_outputs, write_outputs

    check_outputs(args)
    images_in(args.images)  # fails before any replica is asked
    report = made.check(args.images, check)
    canary = report.pairs.canary.version
    if args.version not in (None, canary):
        raise CheckError(f"version {args.version} is not on trial: canary is {canary}")
    write_outputs(args, report)
    print(json.dumps(to_json(report), indent=2) if args.json else to_text(report))
    return report.exit_status


def _run(made: Rollout, args: argparse.Namespace, check: CheckConfig) -> int:
    from featurewire import FeaturewireError
    from featurewire_rollout.check.pull import images_in
    from featurewire_rollout.cli.check_options import check_outputs, write_outputs
    from featurewire_rollout.steps.watch import MAX_LATENCY_RATIO, WatchConfig

    check_outputs(args)
    images_in(args.images)  # fails before anything is loaded
    # The watch must not roll back a version for a latency that the check accepts.
    ratio = max(MAX_LATENCY_RATIO, args.max_latency_ratio)
    exit_status = made.run(
        args.version,
        args.images,
        check=check,
        watch=WatchConfig(seconds=args.watch, max_latency_ratio=ratio),
        accept_new_space=args.accept_new_space,
        accept_bridge=args.accept_bridge,
        judged=lambda report: write_outputs(args, report),
    )
    try:
        _print_status(made.status(), args)
    except FeaturewireError as error:  # the run is done anyway
        _say(str(error))
    return exit_status


def _config(args: argparse.Namespace) -> RolloutConfig:
    from featurewire.plugin.credentials import tls_of, token_of
    from featurewire_rollout.config import RolloutConfig

    names = {field.name for field in dataclasses.fields(RolloutConfig)} - {"tls", "token"}
    given = {name: value for name, value in vars(args).items() if name in names}
    return RolloutConfig(**given, tls=tls_of(args), token=token_of(args))


def _print_status(status: Status, args: argparse.Namespace) -> None:
    from featurewire_rollout.cli.status_report import as_dict, as_text

    print(json.dumps(as_dict(status), indent=2) if args.json else as_text(status))


def _say(text: str) -> None:
    # A closed standard error must not stop a rollout.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
