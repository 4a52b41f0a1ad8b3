"""`featurewire export`: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from featurewire.plugin.arguments import CommandParser
from featurewire_exporter.bridge.config import BridgeConfig
from featurewire_exporter.cli import arguments
from featurewire_exporter.cli.command import add_kind, print_result, progress_on, run
from featurewire_exporter.config import PRECISIONS, ExportConfig
from featurewire_exporter.int8.config import SAMPLES_ONLY, Int8Config, int8_line
from featurewire_exporter.preprocess import RESIZE_METHODS, PreprocessConfig
from featurewire_exporter.version.publish import MAX_VERSION

if TYPE_CHECKING:
    from featurewire_exporter.export import Published

_MAX_BATCH = 1024
_MIN_IMAGE_BYTES = 1024
"""Minimum of `--max-image-bytes`: even a JPEG of one pixel needs most of them."""


def export(argv: Sequence[str]) -> int:
    """Export a hub module as a versioned SavedModel for TensorFlow Serving."""
    parser = export_parser()
    options = parser.parse_args(argv)
    config = _config(parser, options)

    def work(stderr: TextIO) -> None:
        from featurewire_exporter.export import export_module

        if config.int8 is not None and config.int8.images is None:
            print(f"{parser.prog}: warning: {SAMPLES_ONLY}", file=stderr)
        published = export_module(config, progress_on(stderr, as_json=options.json))
        if published.warning is not None:
            print(f"{parser.prog}: warning: {published.warning}", file=stderr)
        print_result(_json_of(published) if options.json else _report_of(published))

    return run(parser, work)


def _config(parser: argparse.ArgumentParser, options: argparse.Namespace) -> ExportConfig:
    """The config that the options describe. Exits with status 2 if they contradict each other."""
    preprocess = {
        "resize_method": options.resize_method,
        "antialias": not options.no_antialias,
        "central_crop": options.central_crop,
        "input_range": options.input_range,
        "max_pixels": options.max_pixels,
        "max_image_bytes": options.max_image_bytes,
        "exif_orientation": not options.no_exif_orientation,
        "webp": options.webp,
    }
    try:
        PreprocessConfig(height=1, width=1, **preprocess).validate()
    except ValueError as error:
        parser.error(str(error))
    for name in ("calibration_images", "int8_any_processor"):
        if getattr(options, name) and not options.int8:
            parser.error(f"--{name.replace('_', '-')} needs --int8")
    if bool(options.bridge_from) != bool(options.bridge_images):
        parser.error("--bridge-from and --bridge-images must be given together")
    return ExportConfig(
        module=options.module,
        base_path=options.base_path,
        kind=options.kind,
        version=options.version,
        precision=options.precision,
        image_size=options.image_size,
        signature=options.signature,
        max_batch_size=options.max_batch_size,
        preprocess=preprocess,
        bridge=_bridge(options) if options.bridge_from else None,
        int8=_int8(options) if options.int8 else None,
    )


def _bridge(options: argparse.Namespace) -> BridgeConfig:
    at_1, at_10 = options.bridge_min_recall
    return BridgeConfig(
        versions=tuple(options.bridge_from),
        images=options.bridge_images,
        max_images=options.bridge_max_images,
        views=options.bridge_views,
        min_recall_at_1=at_1,
        min_recall_at_10=at_10,
    )


def _int8(options: argparse.Namespace) -> Int8Config:
    cosine, overlap = options.int8_min_agreement
    return Int8Config(
        images=options.calibration_images,
        min_cosine=cosine,
        min_overlap_at_10=overlap,
        any_processor=options.int8_any_processor,
    )


def _json_of(published: Published) -> str:
    return json.dumps({"path": str(published.path), "manifest": published.manifest})


def _report_of(published: Published) -> str:
    """The published version as text, its path on the last line."""
    from featurewire_exporter.bridge.report import report

    lines = []
    if published.manifest["module"]["stand_in"]:
        lines.append("This is the stand-in: random weights, vectors without learned meaning.")
    if "int8" in published.manifest:
        lines.append(int8_line(published.manifest["int8"]))
    lines += map(report, published.bridges)
    return "\n".join([*lines, str(published.path)])


def export_parser() -> CommandParser:
    defaults = PreprocessConfig(height=1, width=1)
    parser = CommandParser(
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
        type=arguments.path,
        help="the model's folder; the version becomes a numbered folder in it",
    )
    add_kind(parser)
    parser.add_argument(
        "--version",
        type=arguments.whole(1, MAX_VERSION),
        metavar="N",
        help="the version's number (default: highest version present + 1)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="default: float32"
    )
    parser.add_argument(
        "--image-size",
        type=arguments.size,
        metavar="HEIGHTxWIDTH",
        help="for modules that take images of any size (default: the module's)",
    )
    parser.add_argument(
        "--signature",
        metavar="NAME",
        help="signature that gives the vectors (default: the one whose name says so)",
    )
    parser.add_argument(
        "--input-range",
        type=arguments.number_range,
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
        type=arguments.share,
        default=defaults.central_crop,
        metavar="F",
        help="fraction of each side to keep, around the middle, in (0, 1] (default: 1)",
    )
    parser.add_argument(
        "--max-pixels",
        type=arguments.count,
        default=defaults.max_pixels,
        metavar="N",
        help=f"larger images are too_large (default: {defaults.max_pixels})",
    )
    parser.add_argument(
        "--max-image-bytes",
        type=arguments.whole(_MIN_IMAGE_BYTES, arguments.MAX_COUNT),
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
        type=arguments.whole(1, _MAX_BATCH),
        default=32,
        metavar="N",
        help="largest batch that the server forms; powers of two below it are allowed sizes "
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
        help="a few hundred pictures similar to those you will embed (default: samples)",
    )
    group.add_argument(
        "--int8-min-agreement",
        type=arguments.shares,
        default=(Int8Config.min_cosine, Int8Config.min_overlap_at_10),
        metavar="COSINE,OVERLAP",
        help="minimum median cosine and overlap@10 with float32, else nothing is published "
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
        help="the version that the index was built with; repeat it for several",
    )
    group.add_argument(
        "--bridge-images",
        type=Path,
        metavar="DIR",
        help="about 600 pictures similar to those in the index, to fit and test the bridge",
    )
    group.add_argument(
        "--bridge-max-images",
        type=arguments.count,
        default=BridgeConfig.max_images,
        metavar="N",
        help="maximum number of pictures; more are sampled (default: %(default)s)",
    )
    group.add_argument(
        "--bridge-views",
        type=arguments.views,
        default=BridgeConfig.views,
        metavar="N",
        help="views per picture: itself and crops of it; 8 help if there are few pictures "
        f"(default: {BridgeConfig.views})",
    )
    group.add_argument(
        "--bridge-min-recall",
        type=arguments.shares,
        default=(BridgeConfig.min_recall_at_1, BridgeConfig.min_recall_at_10),
        metavar="AT_1,AT_10",
        help="minimum fractions of recall@1 and @10 that a bridge keeps, else nothing is published "
        f"(default: {BridgeConfig.min_recall_at_1:g},{BridgeConfig.min_recall_at_10:g})",
    )
