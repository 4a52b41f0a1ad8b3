"""`featurewire inspect`: prints the manifest, signatures and files of a published version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from featurewire.plugin.arguments import CommandParser
from featurewire_exporter.cli.command import print_result, run


def inspect(argv: Sequence[str]) -> int:
    """Show what a published version is and does."""
    parser = inspect_parser()
    options = parser.parse_args(argv)

    def work(_stderr: TextIO) -> None:
        from featurewire_exporter.inspect import card, describe

        description = describe(options.version_directory)
        print_result(json.dumps(description) if options.json else card(description))

    return run(parser, work)


def inspect_parser() -> CommandParser:
    parser = CommandParser(
        prog="featurewire inspect", description="Show what a published version is and does."
    )
    parser.add_argument("version_directory", metavar="VERSION_DIR", type=Path)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser
