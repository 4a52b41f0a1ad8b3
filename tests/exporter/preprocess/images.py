"""Images for the tests of preprocessing: real encodings, and false headers."""

from __future__ import annotations

import functools
import io
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from featurewire_exporter.preprocess import PreprocessConfig, build_preprocess

tf1 = tf.compat.v1

OK, EMPTY, UNSUPPORTED, TOO_LARGE, CORRUPT = range(5)

# Building a graph takes a second or two, so tests share these settings if possible.
CONFIG = PreprocessConfig(height=48, width=64)
JUST_ENOUGH = PreprocessConfig(
    height=48, width=64, max_pixels=200 * 150, max_image_bytes=200_000, webp=True
)
"""Allows `photo(200, 150)` in every format, and nothing larger."""
AS_STORED = PreprocessConfig(height=48, width=64, antialias=False, exif_orientation=False)
WEBP_CONFIG = PreprocessConfig(height=61, width=97, max_pixels=1 << 22, webp=True)

Result = tuple[np.ndarray, np.ndarray]


@functools.cache
def served(config: PreprocessConfig) -> Callable[[list[bytes]], Result]:
    """The graph as a SavedModel in a TF1 Session, as in TensorFlow Serving."""
    session, inputs, fetches = _loaded(config)
    run = session.make_callable(fetches, [inputs])
    return lambda batch: tuple(run(np.array(batch, object)))


def served_by_one_thread(config: PreprocessConfig) -> Callable[[list[bytes]], Result]:
    """The same graph in a session with a single thread."""
    loaded, inputs, fetches = _loaded(config)
    options = tf1.ConfigProto(
        inter_op_parallelism_threads=1,
        intra_op_parallelism_threads=1,
        use_per_session_threads=True,
    )
    session = tf1.Session(graph=loaded.graph, config=options)
    return lambda batch: tuple(session.run(fetches, {inputs: np.array(batch, object)}))


def served_graph(config: PreprocessConfig) -> tf.compat.v1.GraphDef:
    """The same graph, for inspection."""
    return _loaded(config)[0].graph.as_graph_def()


@functools.cache
def _loaded(config: PreprocessConfig) -> tuple[tf.compat.v1.Session, str, list[str]]:
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "model")
        with tf.Graph().as_default(), tf1.Session() as session:
            inputs = tf1.placeholder(tf.string, [None], "image_bytes")
            images, status = build_preprocess(config)(inputs)
            outputs = {"images": images, "status": status}
            signature = tf1.saved_model.predict_signature_def({"image_bytes": inputs}, outputs)
            builder = tf1.saved_model.Builder(path)
            signatures = {"serving_default": signature}
            builder.add_meta_graph_and_variables(session, ["serve"], signatures)
            builder.save()
        session = tf1.Session(graph=tf.Graph())
        with session.graph.as_default():
            loaded = tf1.saved_model.load(session, ["serve"], path)
    signature = loaded.signature_def["serving_default"]
    fetches = [signature.outputs[name].name for name in ("images", "status")]
    return session, signature.inputs["image_bytes"].name, fetches


def photo(width: int = 97, height: int = 61, seed: int = 1) -> Image.Image:
    """A picture with soft shapes and some noise, in which all corners differ."""
    random = np.random.default_rng(seed)
    shapes = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = random.integers(-6, 7, (height, width, 1))
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def resized(
    pixels: np.ndarray | Image.Image,
    height: int,
    width: int,
    method: str = "bilinear",
    **more: bool,
) -> np.ndarray:
    """The result of `tf.image.resize` for uint8 pixels, in [0, 1]."""
    more = {"antialias": True} | more
    values = tf.image.resize(np.asarray(pixels), [height, width], method, **more)
    return np.clip(np.asarray(values, np.float32) / 255, 0, 1)


TIFF_TYPES = {"SHORT": (3, "H"), "LONG": (4, "I"), "SSHORT": (8, "h"), "SLONG": (9, "i")}
"""TIFF type numbers that an orientation may have, with the format of `struct`."""


def exif(orientation: int, order: str = "<", *, before: int = 2, kind: str = "SHORT") -> bytes:
    """A TIFF block with the tag in this type, after `before` others and before another one."""
    number, form = TIFF_TYPES[kind]
    value = struct.pack(order + form, orientation).ljust(4, b"\0")
    seven, five = (struct.pack(order + "HH", each, 0) for each in (7, 5))
    entries = [(0x0100 - before + at, 3, 1, seven) for at in range(before)]
    entries += [(0x0112, number, 1, value), (0x0131, 3, 1, five)]
    block = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 12) + b"\0" * 4
    block += struct.pack(order + "H", len(entries))
    for tag, type_, count, content in entries:
        block += struct.pack(order + "HHI", tag, type_, count) + content
    return block + b"\0" * 4


def with_exif(jpeg: bytes, block: bytes, *, after_jfif: bool = True) -> bytes:
    """A JPEG with an EXIF segment after or before its JFIF segment."""
    segment = b"Exif\0\0" + block
    segment = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    at = 2 + (2 + int.from_bytes(jpeg[4:6], "big") if after_jfif else 0)
    return jpeg[:at] + segment + jpeg[at:]


def stored_as(image: Image.Image, orientation: int) -> Image.Image:
    """`image` as a camera would store it with this orientation."""
    transpose = Image.Transpose
    undo = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_270,
    }
    return image.transpose(undo[orientation]) if orientation > 1 else image


def png_chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png_claiming(width: int, height: int) -> bytes:
    """A file of about 100 bytes."""
    start = b"\x89PNG\r\n\x1a\n"
    start += png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return start + png_chunk(b"IDAT", zlib.compress(b"\0" * 99)) + png_chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(photo()))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(photo().quantize(16), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(photo(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_claiming(width: int, height: int) -> bytes:
    """An extended WebP file; the sides of its canvas are at most 2^24."""
    data = bytearray(encode(photo().convert("RGBA"), "WEBP", exif=b"II*\0\x08\0\0\0\0\0"))
    data[24:27] = (width - 1).to_bytes(3, "little")
    data[27:30] = (height - 1).to_bytes(3, "little")
    return bytes(data)
