"""Accuracy of search by engine and precision, compared with the module's own vectors.

The reference is the module in float32, after TensorFlow's own full decode and antialiased resize.
Four crops of each picture are searched for in the module's index of the pictures. recall@1 is the
fraction of crops that find their picture, and overlap@10 the fraction of a picture's ten nearest
neighbours that stay the same. `recall lost` is the mean loss with its 95 % interval over pictures,
because the crops of one picture resemble each other. If the interval contains 0, these pictures do
not show a loss.

EfficientNet-Lite0 has learned weights. `scaled decode` sends pictures and crops enlarged to 3
megapixels, and `EXIF-turned` sends them rotated with an EXIF tag. Both are compared with a full
decode of the same upright pictures. The 8-bit network of Lite0 was calibrated with pictures of the
same set, including some of these.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from bench import engines, models
from bench._photos import SAMPLES, jpeg, of_pixels
from bench.parts.network import ENGINES, QUICK_ENGINES
from bench.results import Figure
from featurewire_exporter.int8.gate import measure as compare
from featurewire_exporter.quality.recall import unit
from tests.support.pictures import on_white, stamps, write_tiles

PICTURES = 500
DECODED = 125
"""Number of pictures for the decode and EXIF tests."""
CROPS = 4
BATCH = 4
"""A batch size that the engines compile anyway; each further size takes a second."""
EXIF_TURN = 6
QUALITY = 95
Embed = Callable[[Iterable[bytes]], np.ndarray]


def measure(quick: bool) -> list[Figure]:
    pictures = views_of(12 if quick else PICTURES)
    figures = engines_beside(
        "EfficientNet-Lite0, learned weights",
        module_of(models.learned_module(), 224),
        models.learned_with,
        pictures,
        QUICK_ENGINES if quick else ENGINES,
    )
    some = pictures[: 3 if quick else DECODED]
    return figures + _decodes(models.learned(), models.learned_module(), some)


def views_of(count: int) -> list[list[bytes]]:
    """This many pictures, each followed by its crops, as JPEGs.

    They come from Debian's tuxpaint-stamps-default if it is installed, else from the samples.
    """
    import tempfile

    from featurewire_exporter.quality.pictures import views

    paths = stamps()
    if len(paths) >= count:
        chosen = [on_white(path) for path in paths[:: len(paths) // count][:count]]
    else:
        with tempfile.TemporaryDirectory() as folder:
            tiles = write_tiles(sorted(SAMPLES.glob("*.jpg")), Path(folder), count)
            chosen = [path.read_bytes() for path in sorted(tiles.iterdir())]
    found = [list(views(picture, 1 + CROPS)) for picture in chosen]
    return [each for each in found if len(each) == 1 + CROPS]


def engines_beside(
    title: str,
    module: Embed,
    version_with: Callable[[str], Path | None],
    pictures: list[list[bytes]],
    precisions_of: Mapping[str, tuple[str, ...]],
) -> list[Figure]:
    exact = _vectors(module, pictures)
    figures = []
    for engine, precisions in precisions_of.items():
        for precision in precisions:
            version = version_with(precision)
            if version is not None:
                found = _vectors(_engine(version, engine.lower(), precision), pictures)
                figures.append(_figure(title, f"{engine}, {precision}", exact, found))
    return figures


def _decodes(version: Path, folder: Path, pictures: list[list[bytes]]) -> list[Figure]:
    """The same pictures sent in other forms, compared with a full decode of the same files."""
    module, served = module_of(folder, 224), _engine(version, "openvino", "float32")
    title = "Decode and EXIF, EfficientNet-Lite0, OpenVINO, float32"
    figures = []
    for name, change in {"scaled decode": _enlarged, "EXIF-turned": _turned}.items():
        upright, sent = [], []
        for views in pictures:
            pairs = [change(view) for view in views]
            upright.append([pair[0] for pair in pairs])
            sent.append([pair[1] for pair in pairs])
        exact, found = _vectors(module, upright), _vectors(served, sent)
        figures.append(_figure(title, name, exact, found))
    return figures


def _figure(table: str, name: str, exact: np.ndarray, found: np.ndarray) -> Figure:
    measured = compare(exact, found)
    return Figure(
        table=table,
        name=name,
        unit="cosine",
        values=[measured.cosine],
        more={
            "least cosine": f"{measured.least_cosine:.5f}",
            "median cosine": f"{measured.cosine:.5f}",
            "overlap@10": f"{measured.overlap_at_10:.4f}",
            "recall@1": f"{measured.recall_at_1:.4f}",
            "the module's": f"{measured.float32_recall_at_1:.4f}",
            "recall lost": recall_lost(exact, found),
            "crops": measured.queries,
        },
    )


def recall_lost(exact: np.ndarray, found: np.ndarray) -> str:
    """Mean loss of recall@1 in percentage points, with its 95 % interval over pictures."""
    lost = 100 * (_hits(exact, exact).mean(axis=1) - _hits(exact, found).mean(axis=1))
    error = 1.96 * lost.std(ddof=1) / len(lost) ** 0.5
    # If none of n crops changes, the rate may still be up to 3 / n (the rule of three).
    error = max(error, 300 / lost.size / CROPS)
    return f"{lost.mean():.2f} ± {error:.2f} points"


def _hits(exact: np.ndarray, found: np.ndarray) -> np.ndarray:
    """bool `[pictures, CROPS]`: whether a crop finds its picture in the module's index."""
    similarity = unit(found[:, 1:]) @ unit(exact[:, 0]).T
    own = np.einsum("pcp->pc", similarity)
    hits: np.ndarray = (similarity >= own[..., np.newaxis]).sum(axis=-1) <= 1
    return hits


def _enlarged(image: bytes) -> tuple[bytes, bytes]:
    """The same file twice, large enough to be decoded at a fraction of its size."""
    from PIL import Image

    large = jpeg(of_pixels(Image.open(io.BytesIO(image)), 3e6), QUALITY)
    return large, large


def _turned(image: bytes) -> tuple[bytes, bytes]:
    """The picture upright, and the picture rotated with a matching EXIF tag."""
    from PIL import Image

    tag = Image.Exif()
    tag[0x0112] = EXIF_TURN
    picture = Image.open(io.BytesIO(image))
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    return jpeg(picture, QUALITY), jpeg(turned, QUALITY, exif=tag.tobytes())


def module_of(folder: Path, side: int) -> Embed:
    """The module in float32, after TensorFlow's own decode and resize."""
    import tensorflow as tf

    loaded = models.loaded(folder)
    if "image_feature_vector" in loaded.signatures:
        signature = loaded.signatures["image_feature_vector"]
        network = lambda images: signature(images=images)["default"]  # noqa: E731
    else:
        network = loaded

    def embed(images: Iterable[bytes]) -> np.ndarray:
        pixels = [
            tf.image.resize(
                tf.io.decode_image(image, channels=3, expand_animations=False),
                [side, side],
                antialias=True,
            )
            / 255
            for image in images
        ]
        return np.asarray(network(tf.stack(pixels)))

    return embed


def _engine(version: Path, name: str, precision: str) -> Embed:
    engine = engines.load(version, name, precision)

    def embed(images: Iterable[bytes]) -> np.ndarray:
        encoded = np.array([*images], object)
        return engine.run("serving_default", {"image_bytes": encoded}, ["features"])["features"]

    return embed


def _vectors(embed: Embed, pictures: list[list[bytes]]) -> np.ndarray:
    """float32 `[pictures, 1 + CROPS, dimension]`"""
    flat = [view for views in pictures for view in views]
    found = [embed(flat[at : at + BATCH]) for at in range(0, len(flat), BATCH)]
    return np.concatenate(found).reshape(len(pictures), 1 + CROPS, -1)
