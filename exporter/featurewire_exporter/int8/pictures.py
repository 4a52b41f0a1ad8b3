"""Splits pictures into some to calibrate with and some to test with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from featurewire_exporter import photos
from featurewire_exporter.errors import ExportError, one_line
from featurewire_exporter.quality.pictures import find_pictures, views
from featurewire_exporter.quality.recall import NEIGHBOURS
from featurewire_exporter.version.artifact import ArtifactSession

SAMPLES = Path(__file__).resolve().parents[3] / "samples" / "photos"
"""Only a clone of the repository has them; elsewhere pictures are drawn."""
DRAWN = 12
MIN_PICTURES = 5
"""Minimum number of pictures: two are kept out, with more than `MIN_TEST_PICTURES` tiles."""
MIN_TEST_PICTURES = NEIGHBOURS + 2
"""Minimum number of pictures or tiles to test with. Among fewer, the ten nearest are all others."""
FEW = 40
"""With fewer pictures, each is cut into `TILES` x `TILES`, to have enough to search among."""
TILES = 3
TEST_FRACTION = 0.3
MOST_CALIBRATED, MOST_JUDGED = 300, 170
QUERIES = 2
"""Crops per test picture that are searched for."""
_BATCH = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """The network's input, preprocessed as it is served: float32, rows in [0, 1]."""

    source: str
    """The origin of the pictures, as text."""
    calibration: np.ndarray
    """`[C, height, width, 3]`"""
    judged: np.ndarray
    """`[P, 1 + QUERIES, height, width, 3]`: pictures and their crops, none used to calibrate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Encoded pictures, before anything is computed from them."""

    source: str
    """The origin of the pictures, as text."""
    encoded: Sequence[bytes]


def preprocess_pictures(found_pictures: Found, version: Path) -> Pictures:
    """Preprocess the pictures by the artifact in `version`. Raises `ExportError`."""
    source, found = found_pictures.source, found_pictures.encoded
    # Keep whole pictures out, because two tiles of one picture are too similar.
    at = np.random.default_rng(0).permutation(len(found))
    kept = max(1, round(len(found) * TEST_FRACTION))
    judged = [found[i] for i in sorted(at[:kept])]
    calibrated = [found[i] for i in sorted(at[kept:])]
    if len(found) < FEW:
        judged, calibrated = _tiles(judged), _tiles(calibrated)
    try:
        with ArtifactSession(version) as session:
            calibration = _pixels(session, calibrated[:MOST_CALIBRATED])
            rows = [list(views(each, 1 + QUERIES)) for each in judged[:MOST_JUDGED]]
            complete = [row for row in rows if len(row) == 1 + QUERIES]
            pixels = _pixels(session, [view for row in complete for view in row], strict=True)
    except (tf.errors.OpError, ValueError) as error:
        raise ExportError(f"the pictures cannot be preprocessed ({one_line(error)})") from error
    if not len(calibration) or len(complete) < MIN_TEST_PICTURES:
        raise ExportError(_few_decode(source))
    shape = (len(complete), 1 + QUERIES, *pixels.shape[1:])
    return Pictures(source=source, calibration=calibration, judged=pixels.reshape(shape))


def find(folder: Path | None) -> Found:
    """The pictures of a folder, or samples. Raises `ExportError` if too few of them decode."""
    if folder is not None:
        found = find_pictures(folder, option="--calibration-images")
        if len(found) < MIN_PICTURES:
            raise ExportError(
                f"{folder} holds {len(found)} pictures, but at least {MIN_PICTURES} are needed; "
                "give --calibration-images a few hundred pictures similar to those you will embed"
            )
        source = f"{len(found)} pictures of {folder.name}"
        decoded = filter(_decodes, found)
        if len([*itertools.islice(decoded, MIN_PICTURES)]) < MIN_PICTURES:
            raise ExportError(_few_decode(source))
        return Found(source=source, encoded=found)
    if SAMPLES.is_dir():
        return Found(
            source="the sample photos",
            encoded=find_pictures(SAMPLES, option="--calibration-images"),
        )
    drawn = [photos.jpeg(480, 640, seed=seed) for seed in range(DRAWN)]
    return Found(source="drawn pictures", encoded=drawn)


def _few_decode(source: str) -> str:
    return f"too few of {source} decode; give --calibration-images a folder with more"


def _decodes(picture: bytes) -> bool:
    return next(views(picture, 1), None) is not None


def _tiles(pictures: Sequence[bytes]) -> list[bytes]:
    """Parts of pictures as JPEGs."""
    parts = []
    for picture in pictures:
        try:
            pixels = tf.io.decode_image(picture, channels=3, expand_animations=False).numpy()
        except tf.errors.OpError:
            continue
        height, width = (max(side // TILES, 1) for side in pixels.shape[:2])
        for row in range(TILES):
            for column in range(TILES):
                tile = pixels[row * height :, column * width :][:height, :width]
                if tile.size:
                    parts.append(tf.io.encode_jpeg(tile, quality=95).numpy())
    return parts


def _pixels(
    session: ArtifactSession, encoded: Sequence[bytes], *, strict: bool = False
) -> np.ndarray:
    """float32 `[N, height, width, 3]`; bad images are omitted, or zeros with `strict`."""
    found = []
    for start in range(0, len(encoded), _BATCH):
        batch = np.array([*encoded[start : start + _BATCH]], dtype=object)
        values = session.run("preprocess", image_bytes=batch)
        found.append(values["images"] if strict else values["images"][values["status"] == 0])
    return np.concatenate(found) if found else np.empty((0,))
