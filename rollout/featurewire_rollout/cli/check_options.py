"""The options of `featurewire rollout check`, and its output files."""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path

from featurewire_rollout.check.config import CheckConfig
from featurewire_rollout.check.pull import CheckError
from featurewire_rollout.check.render import to_html, to_json
from featurewire_rollout.check.report import Report
from featurewire_rollout.check.thresholds import STRICTNESS, Thresholds

LIMITS = {
    "max_recall_loss": "maximum loss of crops that find their image in stable's index",
    "max_latency_ratio": "maximum median ratio of canary's latency to stable's",
    "max_error_increase": "maximum increase of the fraction of images without a vector",
    "error_rate": "maximum probability of a wrong verdict, each way",
}


def add_check_options(parser: argparse.ArgumentParser, *, images_required: bool = True) -> None:
    """Add the options of `check` and `run` about images, limits and output files."""
    defaults = CheckConfig()
    group = parser.add_argument_group("check")
    group.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        required=images_required,
        help="a directory of images to send through both versions",
    )
    group.add_argument(
        "--max-images",
        metavar="N",
        type=_count,
        default=defaults.max_images,
        help="maximum number of images; more are sampled (default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        metavar="N",
        type=_seed,
        default=0,
        help="random seed of the sample and of the intervals",
    )
    group.add_argument("--no-crops", action="store_true", help="do not send crops of the images")
    group.add_argument("--report", metavar="FILE.html", type=Path, help="write an HTML page")
    group.add_argument("--output", metavar="FILE.json", type=Path, help="write the report as JSON")
    limits = parser.add_argument_group("limits of check")
    limits.add_argument(
        "--strictness",
        choices=STRICTNESS,
        default="normal",
        help="how much vectors may change: exact (rounding), normal, or quantised (a network in "
        "8 bits); default: normal",
    )
    for name, meaning in LIMITS.items():
        default = getattr(defaults.thresholds, name)
        limits.add_argument(
            _option(name),
            metavar="X",
            type=_number,
            default=default,
            help=f"{meaning} (default: {default:g})",
        )


def check_config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> CheckConfig:
    """The settings of the command line. A limit out of its range is wrong usage."""
    try:
        given = {name: getattr(args, name) for name in LIMITS}
        thresholds = Thresholds(**STRICTNESS[args.strictness], **given)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        parser.error(f"{_option(name)} {rest}")
    return CheckConfig(
        thresholds=thresholds,
        max_images=args.max_images,
        seed=args.seed,
        crops=not args.no_crops,
    )


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse output files without a directory, before any work. Raises `CheckError`."""
    for path in (args.report, args.output):
        if path is not None and not path.parent.is_dir():
            raise CheckError(f"{path}: the directory {path.parent} does not exist")


def write_outputs(args: argparse.Namespace, report: Report) -> None:
    """Write `--report` and `--output` atomically. Raises `CheckError`."""
    for path, make in ((args.report, to_html), (args.output, _json)):
        if path is None:
            continue
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        if path.exists() and not path.is_file():  # a pipe or a device cannot be replaced
            partial = path
        try:
            partial.write_text(make(report), encoding="utf-8")
            if partial != path:
                partial.replace(path)
        except OSError as error:
            if partial != path:
                partial.unlink(missing_ok=True)
            raise CheckError(f"{path}: {error.strerror or error}") from error


def _json(report: Report) -> str:
    return json.dumps(to_json(report), indent=2) + "\n"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 6 <= int(text) <= 5000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 6 to 5000")
    return int(text)
