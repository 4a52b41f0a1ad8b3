"""`featurewire rollout`: options, and what is printed. The steps are in `rollout`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from featurewire._cli.arguments import (
    CommandParser,
    positive_int,
    positive_seconds,
    quiet_grpc,
)

if TYPE_CHECKING:
    from featurewire_rollout.check import Thresholds
    from featurewire_rollout.rollout import Rollout, RolloutConfig

STEPS = {
    "status": "show what every replica serves, what step the rollout is at, and what comes next",
    "start": "load a version beside the current one and label it canary",
    "check": "compare what stable and canary make of the same images",
    "promote": "move stable to the version on trial",
    "rollback": "move stable and canary back to the old version",
    "retire": "unload what no label points to",
    "run": "start, check, promote, watch, and roll back by itself",
}


class StepParser(argparse.ArgumentParser):
    """A step's options; what is wrong with them is one line, as for the whole command."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def rollout_parser() -> argparse.ArgumentParser:
    """The options of `featurewire rollout`."""
    parser = CommandParser(
        "featurewire rollout",
        "Move a fleet from one model version to the next. Exit status 0 done, 1 failed, "
        "2 wrong usage, 3 inconclusive (check and run).",
    )
    steps = parser.add_subparsers(
        dest="step", required=True, metavar="STEP", parser_class=StepParser
    )
    for name, text in STEPS.items():
        step = steps.add_parser(name, help=text, allow_abbrev=False)
        _add_options(step, name)
    return parser


def _add_options(step: argparse.ArgumentParser, name: str) -> None:
    step.description = STEPS[name][0].upper() + STEPS[name][1:] + "."
    step.add_argument(
        "--config",
        metavar="FILE",
        required=name not in ("status", "check"),
        help="the models.config that the replicas read: a file, or configmap:NAMESPACE/NAME/KEY",
    )
    step.add_argument(
        "--server",
        action="append",
        required=True,
        metavar="HOST:PORT",
        help="a replica; may be given several times, or be a name that resolves to all of them",
    )
    step.add_argument("--model", required=True, metavar="NAME")
    if name != "status":
        step.add_argument(
            "--version",
            type=positive_int,
            metavar="N",
            required=name in ("start", "run"),
            help="refuse when another one is on trial" if name == "check" else None,
        )
    step.add_argument("--json", action="store_true", help="print one JSON object")
    step.add_argument("--tls", action="store_true", help="encrypt")
    step.add_argument("--tls-ca", type=Path, metavar="FILE", help="trust this authority (PEM)")
    step.add_argument("--tls-cert", type=Path, metavar="FILE", help="client certificate (PEM)")
    step.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    step.add_argument("--tls-server-name", metavar="HOST", help="the name to expect")
    step.add_argument("--token-file", type=Path, metavar="FILE", help="send this bearer token")
    if name == "status":
        return
    step.add_argument(
        "--timeout",
        type=positive_seconds,
        default=300.0,
        metavar="SECONDS",
        help="for replicas to answer, load or show a label (default: %(default)g)",
    )
    step.add_argument(
        "--allow-missing",
        type=_count,
        default=0,
        metavar="K",
        help="go on when so many replicas give no answer",
    )
    step.add_argument(
        "--poll-only",
        action="store_true",
        help="send no reload: the replicas read the config by themselves",
    )
    step.add_argument("--audit", metavar="FILE", help="append one JSON line a step")
    if name in ("promote", "run"):
        step.add_argument(
            "--accept-new-space",
            action="store_true",
            help="though the new vectors cannot be compared with the old ones",
        )
    if name in ("start", "run"):
        step.add_argument("--base-path", metavar="DIR", help="where this machine sees the versions")
        step.add_argument("--no-memory-check", action="store_true", help="load in any case")
    if name in ("check", "run"):
        from featurewire_rollout.check import add_check_options

        add_check_options(step)
    if name == "run":
        step.add_argument(
            "--watch",
            type=positive_seconds,
            default=60.0,
            metavar="SECONDS",
            help="watch the promoted version for so long (default: %(default)g)",
        )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def rollout(argv: list[str]) -> int:
    """Roll a model version out, and back: start, check, promote, rollback, retire."""
    parser = rollout_parser()
    args = parser.parse_args(argv)
    _check_tls(parser, args)
    quiet_grpc()

    from featurewire import ConfigError
    from featurewire_rollout import report
    from featurewire_rollout.rollout import Rollout

    thresholds = None
    if args.step in ("check", "run"):
        from featurewire_rollout.check import thresholds_of

        thresholds = thresholds_of(parser, args)
    try:
        made = Rollout(_config(args), say=_say)
    except ConfigError as error:
        parser.error(str(error))
    with made:
        if args.step in ("check", "run"):
            return _judge(made, args, thresholds)
        if args.step == "status":
            status = made.status()
        elif args.step == "start":
            status = made.start(args.version)
        elif args.step == "promote":
            status = made.promote(args.version, accept_new_space=args.accept_new_space)
        elif args.step == "rollback":
            status = made.rollback(args.version)
        else:
            status = made.retire(args.version)
    print(json.dumps(report.as_dict(status), indent=2) if args.json else report.as_text(status))
    return 1 if args.step == "status" and status.fleet.missing else 0


def _check_tls(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if (args.tls_cert is None) != (args.tls_key is None):
        parser.error("--tls-cert and --tls-key belong together")
    encrypted = args.tls or args.tls_ca is not None
    if not encrypted and (args.tls_cert is not None or args.tls_server_name is not None):
        parser.error("--tls-cert and --tls-server-name need --tls or --tls-ca FILE")


def _judge(made: Rollout, args: argparse.Namespace, thresholds: Thresholds | None) -> int:
    """`check` and `run`: the exit status is the verdict's."""
    from featurewire_rollout import report
    from featurewire_rollout.check import CheckError, check_outputs, write_outputs
    from featurewire_rollout.check.pull import find_images
    from featurewire_rollout.watch import WatchConfig

    check_outputs(args)
    find_images(args.images)  # before anything is loaded
    options = {
        "thresholds": thresholds,
        "limit": args.max_images,
        "seed": args.seed,
        "with_crops": not args.no_crops,
    }
    if args.step == "check":
        found = made.check(args.images, **options)
        if args.version not in (None, found.pairs.canary.version):
            raise CheckError(
                f"version {args.version} is not on trial: canary is {found.pairs.canary.version}"
            )
        write_outputs(args, found)
        print(json.dumps(found.to_json(), indent=2) if args.json else found.to_text())
        return found.exit_status
    status = made.run(
        args.version,
        args.images,
        watch=WatchConfig(seconds=args.watch),
        accept_new_space=args.accept_new_space,
        judged=lambda found: write_outputs(args, found),
        **options,
    )
    after = made.status()
    print(json.dumps(report.as_dict(after), indent=2) if args.json else report.as_text(after))
    return status


def _config(args: argparse.Namespace) -> RolloutConfig:
    from featurewire import TLSConfig
    from featurewire_rollout.rollout import RolloutConfig

    tls = None
    if args.tls or args.tls_ca is not None:
        tls = TLSConfig(
            ca=args.tls_ca, cert=args.tls_cert, key=args.tls_key, server_name=args.tls_server_name
        )
    token = args.token_file.read_text().strip() if args.token_file is not None else None
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
        audit=args.audit,
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
