"""The command line that both jobs share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def arguments(about: str | None) -> argparse.Namespace:
    """Parse the command line; `engine` has the arguments after `--`."""
    own, engine = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, engine = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="a folder that all workers see")
    parser.add_argument("output", type=Path, help="a folder that all workers see")
    parser.add_argument("--server", default="localhost:8500", metavar="HOST:PORT")
    parser.add_argument("--model", default="inception_resnet_v2")
    parser.add_argument("--label", help="pin the current version of this label")
    parser.add_argument("--shard-size", type=int, default=1000, metavar="PHOTOS")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--cluster", default="local", help="Ray: `auto`, or a cluster's address")
    options = parser.parse_args(own)
    options.engine = engine
    if not options.photos.is_dir():
        parser.error(f"{options.photos} is not a folder")
    options.photos, options.output = options.photos.resolve(), options.output.resolve()
    return options
