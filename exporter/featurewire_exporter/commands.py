"""The commands: `featurewire export`, `featurewire inspect`, `featurewire verify`.

Parsing imports no TensorFlow; the work is imported when its arguments are known to be right.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from featurewire_exporter.bridge.config import BridgeConfig
from featurewire_exporter.cli.quiet import quiet_tensorflow
from featurewire_exporter.errors import ExportError, one_line
from featurewire_exporter.int8.config import Int8Config
from featurewire_exporter.preprocess import MAX_TARGET_SIDE, RESIZE_METHODS, PreprocessConfig
from featurewire_exporter.version.publish import LARGEST_VERSION

if TYPE_CHECKING:
    from featurewire_exporter.export import Published

_PRECISIONS = ("float32", "bfloat16", "float16")
_KINDS = ("auto", "slim-checkpoint")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def export_parser() -> argparse.ArgumentParser:
    defaults = PreprocessConfig(height=1, width=1)
    parser = _Parser(
        prog="featurewire export",
        description="Export an image-feature-vector module as a versioned SavedModel for "
        "TensorFlow Serving. Prints the path of the published version last.",
    )
    parser.add_argument(
        "module",
        metavar="MODULE",
        help="an https:// handle, a folder, a .tar.gz, a gs:// path, a TF-Slim checkpoint (with "
        "--from), or stand-in",
    )
    parser.add_argument(
        "base_path",
        metavar="OUTPUT_BASE_PATH",
        type=_path,
        help="the model's folder; the version becomes a numbered folder in it",
    )
    parser.add_argument(
        "--from",
        dest="kind",
        choices=_KINDS,
        default="auto",
        help="what MODULE is, where it does not say so itself (default: auto)",
    )
    parser.add_argument(
        "--version",
        type=_version,
        metavar="N",
        help="number to publish as (default: highest version present + 1)",
    )
    parser.add_argument(
        "--precision", choices=_PRECISIONS, default="float32", help="default: float32"
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        metavar="HEIGHTxWIDTH",
        help="for modules that take images of any size (default: what the module says)",
    )
    parser.add_argument(
        "--signature",
        metavar="NAME",
        help="signature that gives the vectors (default: the one whose name says so)",
    )
    parser.add_argument(
        "--input-range",
        type=_range,
        default=defaults.input_range,
        metavar="LOW,HIGH",
        help="numbers that the module expects for black and white, such as 0,255 (default: 0,1)",
    )
    parser.add_argument(
        "--resize-method",
        choices=RESIZE_METHODS,
        default=defaults.resize_method,
        help=f"default: {defaults.resize_method}",
    )
    parser.add_argument(
        "--central-crop",
        type=_share,
        default=defaults.central_crop,
        metavar="F",
        help="share of each side to keep, around the middle, in (0, 1] (default: 1)",
    )
    parser.add_argument(
        "--max-pixels",
        type=_count,
        default=defaults.max_pixels,
        metavar="N",
        help=f"larger images are too_large (default: {defaults.max_pixels})",
    )
    parser.add_argument(
        "--max-image-bytes",
        type=_count,
        default=defaults.max_image_bytes,
        metavar="N",
        help=f"longer encodings are too_large (default: {defaults.max_image_bytes})",
    )
    parser.add_argument(
        "--no-antialias", action="store_true", help="resize as plain tf.image.resize does"
    )
    parser.add_argument(
        "--no-exif-orientation", action="store_true", help="leave images as they are stored"
    )
    parser.add_argument(
        "--webp", action="store_true", help="also decode WebP; needs a newer TensorFlow Serving"
    )
    parser.add_argument(
        "--max-batch-size",
        type=_count,
        default=32,
        metavar="N",
        help="largest batch the server merges; powers of two below it are allowed sizes "
        "(default: 32)",
    )
    _add_int8_options(parser)
    _add_bridge_options(parser)
    parser.add_argument("--json", action="store_true", help="print path and manifest as JSON")
    return parser


def _add_int8_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("int8: also a network in 8 bits, for OpenVINO")
    group.add_argument(
        "--int8",
        action="store_true",
        help="add a quantised network to the float one; needs featurewire-exporter[int8]",
    )
    group.add_argument(
        "--calibration-images",
        type=Path,
        metavar="DIR",
        help="some hundreds of pictures such as will be embedded (default: samples)",
    )
    group.add_argument(
        "--int8-min-agreement",
        type=_shares,
        default=(Int8Config.min_cosine, Int8Config.min_overlap_at_10),
        metavar="COSINE,OVERLAP",
        help="median cosine and overlap@10 with float32 that it must reach to be published "
        f"(default: {Int8Config.min_cosine:g},{Int8Config.min_overlap_at_10:g})",
    )
    group.add_argument(
        "--int8-any-processor",
        action="store_true",
        help="quantise for processors without VNNI even if this one has it",
    )


def _add_bridge_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("bridge: also serve vectors in an older version's space")
    group.add_argument(
        "--bridge-from",
        type=Path,
        action="append",
        metavar="OLD_VERSION_DIR",
        help="the version that the index was built with; may be given several times",
    )
    group.add_argument(
        "--bridge-images",
        type=Path,
        metavar="DIR",
        help="pictures such as the index holds, some 600, to fit and test the bridge with",
    )
    group.add_argument(
        "--bridge-max-images",
        type=_count,
        default=BridgeConfig.max_images,
        metavar="N",
        help="maximum number of pictures; more are sampled (default: %(default)s)",
    )
    group.add_argument(
        "--bridge-views",
        type=_views,
        default=BridgeConfig.views,
        metavar="N",
        help="of each picture, itself and crops of it; more help where pictures are few "
        f"(default: {BridgeConfig.views})",
    )
    group.add_argument(
        "--bridge-min-recall",
        type=_shares,
        default=(BridgeConfig.min_recall_at_1, BridgeConfig.min_recall_at_10),
        metavar="AT_1,AT_10",
        help="shares of recall@1 and recall@10 that a bridge must keep, or nothing is published "
        f"(default: {BridgeConfig.min_recall_at_1:g},{BridgeConfig.min_recall_at_10:g})",
    )


def inspect_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="featurewire inspect", description="Show what a published version is and does."
    )
    parser.add_argument("version_directory", metavar="VERSION_DIR", type=Path)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def verify_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="featurewire verify",
        description="Compare a published version with a module; exit status 1 on a mismatch.",
    )
    parser.add_argument("version_directory", metavar="VERSION_DIR", type=Path)
    parser.add_argument("--module", required=True, metavar="MODULE", help="as for export")
    parser.add_argument(
        "--from",
        dest="kind",
        choices=_KINDS,
        default="auto",
        help="what MODULE is, where it does not say so itself (default: auto)",
    )
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")
    return parser


def export(argv: Sequence[str]) -> int:
    """Export a hub module as a versioned SavedModel for TensorFlow Serving."""
    parser = export_parser()
    arguments = parser.parse_args(argv)
    preprocess = {
        "resize_method": arguments.resize_method,
        "antialias": not arguments.no_antialias,
        "central_crop": arguments.central_crop,
        "input_range": arguments.input_range,
        "max_pixels": arguments.max_pixels,
        "max_image_bytes": arguments.max_image_bytes,
        "exif_orientation": not arguments.no_exif_orientation,
        "webp": arguments.webp,
    }
    try:
        PreprocessConfig(height=1, width=1, **preprocess).validate()
    except ValueError as error:
        parser.error(str(error))
    if arguments.max_batch_size > _LARGEST_BATCH:
        parser.error(f"--max-batch-size is {arguments.max_batch_size}, at most {_LARGEST_BATCH}")
    if arguments.max_image_bytes < _SMALLEST_IMAGE:
        parser.error(
            f"--max-image-bytes is {arguments.max_image_bytes}, at least {_SMALLEST_IMAGE}: "
            "no photo has fewer"
        )
    if arguments.calibration_images and not arguments.int8:
        parser.error("--calibration-images is for --int8")
    if arguments.int8_any_processor and not arguments.int8:
        parser.error("--int8-any-processor is for --int8")
    if bool(arguments.bridge_from) != bool(arguments.bridge_images):
        parser.error("--bridge-from and --bridge-images go together")

    def work(stderr: Any) -> None:
        from featurewire_exporter.export import ExportConfig, export_module
        from featurewire_exporter.int8.config import SAMPLES_ONLY

        bridge = None
        if arguments.bridge_from:
            at_1, at_10 = arguments.bridge_min_recall
            bridge = BridgeConfig(
                versions=tuple(arguments.bridge_from),
                images=arguments.bridge_images,
                max_images=arguments.bridge_max_images,
                views=arguments.bridge_views,
                min_recall_at_1=at_1,
                min_recall_at_10=at_10,
            )
        int8 = None
        if arguments.int8:
            cosine, overlap = arguments.int8_min_agreement
            int8 = Int8Config(
                images=arguments.calibration_images,
                min_cosine=cosine,
                min_overlap_at_10=overlap,
                any_processor=arguments.int8_any_processor,
            )
            if int8.images is None:
                print(f"{parser.prog}: warning: {SAMPLES_ONLY}", file=stderr)
        published = export_module(
            ExportConfig(
                module=arguments.module,
                base_path=arguments.base_path,
                kind=arguments.kind,
                version=arguments.version,
                precision=arguments.precision,
                image_size=arguments.image_size,
                signature=arguments.signature,
                max_batch_size=arguments.max_batch_size,
                preprocess=preprocess,
                bridge=bridge,
                int8=int8,
            ),
            _progress(stderr, arguments.json),
        )
        if published.warning is not None:
            print(f"{parser.prog}: warning: {published.warning}", file=stderr)
        _say(_json_of(published) if arguments.json else _report_of(published))

    return _run(parser, work)


def _json_of(published: Published) -> str:
    return json.dumps({"path": str(published.path), "manifest": published.manifest})


def _report_of(published: Published) -> str:
    """What was published, for people; the path last."""
    from featurewire_exporter.bridge.report import report
    from featurewire_exporter.int8.config import int8_line

    lines = []
    if published.manifest["module"]["stand_in"]:
        lines.append("This is the stand-in: random weights, vectors without learned meaning.")
    if "int8" in published.manifest:
        lines.append(int8_line(published.manifest["int8"]))
    lines += map(report, published.bridges)
    return "\n".join([*lines, str(published.path)])


def inspect(argv: Sequence[str]) -> int:
    """Show what a published version is and does."""
    parser = inspect_parser()
    arguments = parser.parse_args(argv)

    def work(_stderr: Any) -> None:
        from featurewire_exporter.inspect import card, describe

        description = describe(arguments.version_directory)
        _say(json.dumps(description) if arguments.json else card(description))

    return _run(parser, work)


def verify(argv: Sequence[str]) -> int:
    """Compare a published version with a module."""
    parser = verify_parser()
    arguments = parser.parse_args(argv)

    def work(stderr: Any) -> None:
        from featurewire_exporter.verify import verify_version

        report = verify_version(
            arguments.version_directory,
            arguments.module,
            _progress(stderr, arguments.json),
            kind=arguments.kind,
        )
        _say(json.dumps(report.as_dict()) if arguments.json else report.text())
        report.require()

    return _run(parser, work)


_LARGEST_BATCH = 1024
_SMALLEST_IMAGE = 1024
"""Bytes; a JPEG of one pixel takes most of them."""


def _say(text: str) -> None:
    """Print a result. Raises `ExportError` with its last line where it cannot be printed."""
    try:
        print(text, flush=True)
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            # What is left in the buffer has nowhere to go when the interpreter ends, either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ExportError(
            f"standard output cannot be written ({error.strerror}); the work is done: "
            f"{text.splitlines()[-1]}"
        ) from error


def _progress(stderr: Any, as_json: bool) -> Any:
    from featurewire_exporter.progress import Progress

    if stderr.isatty():
        return Progress(stderr)
    return Progress(None if as_json else sys.stdout)


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


def _run(parser: argparse.ArgumentParser, work: Callable[[Any], None]) -> int:
    # A terminated export unwinds, so that it removes what it was writing.
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        with quiet_tensorflow() as stderr:
            try:
                work(stderr)
                return 0
            except ExportError as error:
                message = str(error)
            except KeyboardInterrupt as stop:
                print(f"{parser.prog}: interrupted; nothing was published", file=stderr)
                return 143 if isinstance(stop, _Terminated) else 130
            except MemoryError:
                message = "out of memory; export on a machine with more, or fewer others on it"
            except Exception as error:
                if os.environ.get("FEATUREWIRE_DEBUG"):
                    raise
                message = (
                    f"{type(error).__name__}: {one_line(error)}; "
                    "set FEATUREWIRE_DEBUG=1 for the traceback"
                )
            print(f"{parser.prog}: {' '.join(message.splitlines())}", file=stderr)
            return 1
    finally:
        signal.signal(signal.SIGTERM, previous)


def _count(text: str) -> int:
    return _whole(text, 2**31 - 1)


def _version(text: str) -> int:
    return _whole(text, LARGEST_VERSION)


def _whole(text: str, most: int) -> int:
    # Not more digits than count: Python refuses to read a number of thousands.
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 1")
    return value


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers such as 0,255") from None
    return low, high


def _views(text: str) -> int:
    value = _whole(text, 64)
    if value < 3:
        raise argparse.ArgumentTypeError(f"{text!r} is too few: two crops of each are tested")
    return value


def _shares(text: str) -> tuple[float, float]:
    parts = [_share(part) for part in text.split(",")]
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not two shares such as 0.8,0.95")
    return parts[0], parts[1]


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) == 1:
        parts *= 2
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 299x299")
    height, width = map(int, parts)
    if max(height, width) > MAX_TARGET_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} has a side of more than {MAX_TARGET_SIDE}")
    return height, width


def _path(text: str) -> str:
    # A str: as a Path, gs://bucket would become a folder gs:.
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a path")
    return text
