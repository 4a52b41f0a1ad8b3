"""`featurewire status`: list a model's versions and tell whether the model answers.

Imports stay light here: `featurewire --help` imports this module for its help line.
"""

from __future__ import annotations

from featurewire._cli.server_options import add_server_options, apply_environment
from featurewire.plugin.arguments import CommandParser, positive_seconds, quiet_grpc

LOOK_SECONDS = 10.0
"""Default timeout, shorter than other commands' because `status` serves as a health check."""


def status(argv: list[str]) -> int:
    """Show the versions of a served model; exit status 1 when it is not AVAILABLE."""
    parser = status_parser()
    args = parser.parse_args(argv)
    apply_environment(parser, args, timeout=LOOK_SECONDS)
    quiet_grpc()

    from featurewire._cli import connection, report

    connection.check(parser, args)
    return report.show(args)


def status_parser() -> CommandParser:
    """The options of `featurewire status`."""
    parser = CommandParser(
        "featurewire status",
        "Show the versions of a served model. Exit status 1 if no version, or not the requested "
        "one, is AVAILABLE.",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=positive_seconds,
        help="wait up to this long for it to be AVAILABLE",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_server_options(
        parser,
        timeout=LOOK_SECONDS,
        timeout_help="timeout of one status request",
    )
    return parser
