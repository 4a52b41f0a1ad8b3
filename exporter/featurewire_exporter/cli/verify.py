"""`featurewire verify`: a published version compared with a module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from featurewire.plugin.arguments import CommandParser
from featurewire_exporter.cli.command import add_kind, print_result, progress_on, run


def verify(argv: Sequence[str]) -> int:
    """Compare a published version with a module."""
    parser = verify_parser()
    options = parser.parse_args(argv)

    def work(stderr: TextIO) -> None:
        from featurewire_exporter.verify import verify_version

        progress = progress_on(stderr, as_json=options.json)
        report = verify_version(
            options.version_directory, options.module, progress, kind=options.kind
        )
        print_result(json.dumps(report.as_dict()) if options.json else report.text())
        report.require()

    return run(parser, work)


def verify_parser() -> CommandParser:
    parser = CommandParser(
        prog="featurewire verify",
        description="Compare a published version with a module; exit status 1 on a mismatch.",
    )
    parser.add_argument("version_directory", metavar="VERSION_DIR", type=Path)
    parser.add_argument("--module", required=True, metavar="MODULE", help="as for export")
    add_kind(parser)
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")
    return parser
