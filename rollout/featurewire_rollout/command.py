"""`featurewire rollout`: reads what a fleet serves. Moving it comes with the rollout planner."""

from __future__ import annotations

import argparse
import sys


def rollout_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="featurewire rollout", description="Move a fleet from one model version to the next."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    status = actions.add_parser("status", help="show the versions that every server has")
    status.add_argument("--server", action="append", required=True, metavar="HOST:PORT")
    status.add_argument("--model", required=True)
    return parser


def rollout(argv: list[str]) -> int:
    """Model version rollouts: so far, the versions of every server."""
    import featurewire

    arguments = rollout_parser().parse_args(argv)
    failed = False
    for server in arguments.server:
        try:
            with featurewire.Client(server, model=arguments.model) as client:
                versions = client.status().versions
        except featurewire.FeaturewireError as error:
            print(f"featurewire rollout: {server}: {error}", file=sys.stderr)
            failed = True
            continue
        for version in versions:
            print(f"{server}\t{version.version}\t{version.state}")
    return 1 if failed else 0
