"""`featurewire serve` and `python -m featurewire_server`."""

from __future__ import annotations

import argparse


def serve(argv: list[str]) -> int:
    """Serve SavedModels with TensorFlow Serving's API."""
    from featurewire_server import process

    return process.main(argv)


def serve_parser() -> argparse.ArgumentParser:
    """The argument parser of `featurewire serve`, which the documentation tests read."""
    from featurewire_server import flags

    return flags.parser()
