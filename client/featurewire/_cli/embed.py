"""`featurewire embed`: image files in, a file of feature vectors out.

Imports stay light here: `featurewire --help` imports this module for its help line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from featurewire._cli.server_options import add_server_options, apply_environment
from featurewire.plugin.arguments import (
    CommandParser,
    non_empty,
    positive_seconds,
    quiet_grpc,
)


def embed(argv: list[str]) -> int:
    """Turn image files into feature vectors: a .npy, .parquet or .jsonl file."""
    parser = embed_parser()
    # `parse_intermixed_args` drops the arguments after `--`, so they are added by hand.
    mark = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_intermixed_args(argv[:mark])
    args.paths += argv[mark + 1 :]
    if not args.paths:
        parser.error("the following arguments are required: PATH")
    apply_environment(parser, args)
    quiet_grpc()

    from featurewire._cli import connection, embedding, outputs, sources

    try:
        output = outputs.Output(args.output)
        for path in args.paths:
            if "://" in path and not sources.exists(path):
                raise ValueError(f"{path} is a URL; download it and give the file")
            if not sources.exists(path):
                raise ValueError(
                    f"{path}: no such file or directory, and no file matches it as a pattern"
                )
        if not args.output.absolute().parent.is_dir():
            raise ValueError(f"{args.output.parent} is not a directory; create it first")
        output.check_free(resume=args.resume, overwrite=args.overwrite)
    except (ValueError, outputs.OutputInTheWay) as error:
        parser.error(str(error))
    connection.check(parser, args)
    listed: Iterable[str] = ()
    if sources.STDIN in args.paths:
        if sys.stdin is None:
            parser.error("standard input is closed; give PATHs, or a list for -")
        listed = sources.entries(sys.stdin.buffer, b"\0" if args.null else b"\n")
    return embedding.EmbedRun(args, output).embed(listed)


def embed_parser() -> CommandParser:
    """The options of `featurewire embed`."""
    parser = CommandParser(
        "featurewire embed",
        "Turn image files into feature vectors. Images that fail are listed; the others are "
        "written.",
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="a file, a directory (searched recursively for images), a quoted pattern, or - for "
        "a list of paths on standard input",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        required=True,
        help="FILE.npy (with FILE.jsonl, its index), FILE.parquet or FILE.jsonl",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume",
        action="store_true",
        help="continue FILE: embed only the images that are not in it",
    )
    existing.add_argument(
        "--overwrite", action="store_true", help="start over; FILE is replaced at the end"
    )
    parser.add_argument(
        "--vector-space",
        metavar="DIGEST",
        type=non_empty,
        help="accept only vectors of this space: the version's own, or through a bridge",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=positive_seconds,
        help="first wait up to this long for the model to be AVAILABLE",
    )
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=positive_seconds,
        help="how long to keep retrying if the server becomes unavailable or overloaded during "
        "the run (default: 300)",
    )
    parser.add_argument(
        "-0",
        "--null",
        action="store_true",
        help="paths in the list end with a zero byte instead of a newline",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print only failures, without progress and summary"
    )
    add_server_options(parser)
    _add_signature_options(parser)
    return parser


def _add_signature_options(parser: CommandParser) -> None:
    group = parser.add_argument_group("for models that featurewire did not export")
    group.add_argument("--signature", metavar="NAME", help="the signature to call")
    group.add_argument("--input-name", metavar="NAME", help="its input: encoded images")
    group.add_argument("--output-name", metavar="NAME", help="its output: the vectors")
