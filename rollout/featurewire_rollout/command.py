"""`featurewire rollout`: run the step that the options name, and print the result."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING

from featurewire.plugin.arguments import quiet_grpc
from featurewire.plugin.wording import in_options
from featurewire_rollout.cli.options import parse, rollout_parser

if TYPE_CHECKING:
    from featurewire_rollout.check import CheckConfig
    from featurewire_rollout.config import RolloutConfig
    from featurewire_rollout.steps.rollout import Rollout

__all__ = ["rollout", "rollout_parser"]


def rollout(argv: list[str]) -> int:
    """Move a fleet between model versions: start, check, promote, rollback, retire."""
    parser, args = parse(argv)
    quiet_grpc()

    from featurewire import ConfigError
    from featurewire.plugin.interrupts import interruptible
    from featurewire_rollout.cli import status_report
    from featurewire_rollout.steps.rollout import Rollout

    check = None
    if args.step in ("check", "run"):
        from featurewire_rollout.cli.check_options import check_config

        check = check_config(parser, args)
    try:
        made = Rollout(_config(args), say=_say)
    except ConfigError as error:
        parser.error(in_options(error))
    with interruptible(), made:
        if check is not None:
            return _judge(made, args, check)
        if args.step == "status":
            status = made.status()
        elif args.step == "start":
            status = made.start(args.version)
        elif args.step == "promote":
            status = made.promote(
                args.version,
                accept_new_space=args.accept_new_space,
                accept_bridge=args.accept_bridge,
            )
        elif args.step == "rollback":
            status = made.rollback(args.version)
        else:
            status = made.retire(args.version)
    print(
        json.dumps(status_report.as_dict(status), indent=2)
        if args.json
        else status_report.as_text(status)
    )
    doubtful = status.fleet.missing or status.phase.name == "wrong config"
    return 1 if args.step == "status" and doubtful else 0


def _judge(made: Rollout, args: argparse.Namespace, check: CheckConfig) -> int:
    """`check` and `run`, whose exit status is the verdict's."""
    from featurewire import FeaturewireError
    from featurewire_rollout.check import CheckError, to_json, to_text
    from featurewire_rollout.check.pull import images_in
    from featurewire_rollout.cli import status_report
    from featurewire_rollout.cli.check_options import check_outputs, write_outputs
    from featurewire_rollout.steps.watch import MAX_LATENCY_RATIO, WatchConfig

    check_outputs(args)
    images_in(args.images)  # fails before anything is loaded
    if args.step == "check":
        found = made.check(args.images, check)
        if args.version not in (None, found.pairs.canary.version):
            raise CheckError(
                f"version {args.version} is not on trial: canary is {found.pairs.canary.version}"
            )
        write_outputs(args, found)
        print(json.dumps(to_json(found), indent=2) if args.json else to_text(found))
        return found.exit_status
    status = made.run(
        args.version,
        args.images,
        check=check,
        # The watch must not roll back a version for a latency that the check accepts.
        watch=WatchConfig(
            seconds=args.watch, max_latency_ratio=max(MAX_LATENCY_RATIO, args.max_latency_ratio)
        ),
        accept_new_space=args.accept_new_space,
        accept_bridge=args.accept_bridge,
        judged=lambda found: write_outputs(args, found),
    )
    try:
        after = made.status()
    except FeaturewireError as error:  # the run is done anyway
        _say(str(error))
        return status
    print(
        json.dumps(status_report.as_dict(after), indent=2)
        if args.json
        else status_report.as_text(after)
    )
    return status


def _config(args: argparse.Namespace) -> RolloutConfig:
    from featurewire.plugin.credentials import tls_of, token_of
    from featurewire_rollout.config import RolloutConfig

    tls, token = tls_of(args), token_of(args)
    common = {"servers": args.server, "model": args.model, "config": args.config}
    if args.step == "status":
        return RolloutConfig(**common, tls=tls, token=token)
    return RolloutConfig(
        **common,
        tls=tls,
        token=token,
        timeout=args.timeout,
        allow_missing=args.allow_missing,
        reload=not args.poll_only,
        base_path=getattr(args, "base_path", None),
        memory_check=not getattr(args, "no_memory_check", False),
        trust_config=getattr(args, "trust_config", False),
        audit=args.audit,
    )


def _say(text: str) -> None:
    # A closed standard error must not stop a rollout.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
