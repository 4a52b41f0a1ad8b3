"""Preprocessing without TensorFlow gives the statuses and pixels of the exported graph.

`measure_same_pixels` is the long form.
"""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from featurewire_exporter.preprocess import PreprocessConfig, config
from featurewire_server.preprocess import Preprocess, RefusedImage, settings
from featurewire_server.preprocess.resample import resample
from featurewire_server.preprocess.spans import spans
from tests.exporter.preprocess.images import (
    CONFIG,
    bmp_claiming,
    encode,
    exif,
    gif_claiming,
    jpeg_claiming,
    photo,
    png_claiming,
    webp_claiming,
    with_exif,
)
from tests.server.preprocess.compare import WEBP, compared, preprocess_for
from tests.server.preprocess.files import damaged, generated

KNOWN_DIFFERENCES = ("gif",)
"""Damaged files of which docs/preprocessing.md says that only the graph decodes them."""


def differences(files: list[tuple[str, bytes]], of: PreprocessConfig = WEBP) -> list[str]:
    return [
        f"{each.name}: graph {each.graph_status}, here {each.status}, {each.difference:.1g}"
        for each in compared(files, of)
        if not each.agrees
    ]


def test_intact_files_of_every_kind() -> None:
    assert differences(list(itertools.islice(generated(1), 118))) == []


def test_damaged_files() -> None:
    chance = random.Random(1)
    intact = list(itertools.islice(generated(2), 118))
    files = [
        (name, damaged(data, chance))
        for name, data in chance.choices(intact, k=150)
        if not name.startswith(KNOWN_DIFFERENCES) and len(data) < 60_000
    ]
    assert differences(files) == []


def test_headers_that_are_refused() -> None:
    claims = (jpeg_claiming, png_claiming, gif_claiming, bmp_claiming, webp_claiming)
    sizes = [(60_000, 60_000), (3000, 3000), (1, 65535)]
    files = [("claims", claim(*size)) for claim in claims for size in sizes]
    files += [("claims nothing", claim(0, 7)) for claim in claims[:4]]
    files += [("empty", b""), ("noise", b"not an image"), ("magic", b"\xff\xd8\xff")]
    assert differences(files) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos3"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("crop", [1.0, 0.7])
def test_every_way_of_resizing(method: str, antialias: bool, crop: float) -> None:
    chosen = PreprocessConfig(
        height=50, width=40, resize_method=method, antialias=antialias, central_crop=crop
    )
    sizes = [(640, 427), (40, 50), (9, 700), (1300, 1000), (2, 2), (2000, 3)]
    pictures = [photo(*size) for size in sizes]
    files = [(f"{each.size}", encode(each, quality=90)) for each in pictures]
    files += [(f"{each.size}", encode(each, "PNG")) for each in pictures]
    files.append(("turned", with_exif(encode(photo(300, 200)), exif(6))))
    assert differences(files, chosen) == []


@pytest.mark.slow
def test_settings_that_decide_what_is_read() -> None:
    chosen = PreprocessConfig(height=48, width=64, exif_orientation=False, max_image_bytes=9000)
    files = list(itertools.islice(generated(3), 118))
    assert differences(files, chosen) == []


def test_images_decode_in_several_threads() -> None:
    pixels = preprocess_for(WEBP)
    files = [data for _, data in itertools.islice(generated(1), 118)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(pixels, files * 2))
    for (image, status), (expected, other) in zip(found, map(pixels, files * 2), strict=True):
        assert status == other
        np.testing.assert_array_equal(image, expected)


def test_compiled_loops_and_numpy_give_the_same_pixels() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    for size in (3, 61, 200):
        rows = spans(61, size, size / 61, -0.4, "bicubic", antialias=True)
        columns = spans(97, 2 * size, 2 * size / 97, 0.0, "lanczos3", antialias=True)
        one, other = (
            resample(levels, 0, slice(0, 97), rows, columns, compiled=compiled)
            for compiled in (True, False)
        )
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_limits_are_those_of_the_exporter() -> None:
    for name in ("MAX_SCANS", "MAX_SCANS_EVER", "LEVEL_SHIFT", "ALGORITHM_REVISION"):
        assert getattr(settings, name) == getattr(config, name)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"algorithm_revision": 3}, "revision 3"),
        ({"resize_method": "area"}, "method"),
        ({"height": None}, "settings cannot be read"),
        ({"scaled_decode": []}, "settings cannot be read"),
    ],
)
def test_versions_it_cannot_reproduce_are_refused(changed: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Preprocess({"preprocess": CONFIG.as_manifest() | changed})
    with pytest.raises(ValueError, match="no preprocessing settings"):
        Preprocess({})


def test_a_refused_image_says_its_status() -> None:
    preprocess = Preprocess({"preprocess": CONFIG.as_manifest()})
    with pytest.raises(RefusedImage, match="unsupported") as refused:
        preprocess.pixels(b"text")
    assert refused.value.status == 2
