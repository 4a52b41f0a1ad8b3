"""The steps from encoded bytes to the network's input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featurewire_server.preprocess import bmp, gif, jpeg, png, webp
from featurewire_server.preprocess.header import (
    CORRUPT,
    EMPTY,
    TOO_LARGE,
    UNSUPPORTED,
    Header,
    RefusedImage,
)
from featurewire_server.preprocess.resize import make_plan, resized
from featurewire_server.preprocess.settings import MAX_SCANS, MAX_SCANS_EVER, Settings


class Preprocess:
    """The preprocessing of one version. `pixels` may be called from several threads at once."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        """Raises ValueError, a clause about the version such as `its manifest has no preprocessing
        settings`, if the pixels of its graph cannot be reproduced."""
        self._settings = Settings.of(manifest)
        self.shape = (self._settings.height, self._settings.width, 3)
        """Rows, columns and channels of the network's input."""

    def pixels(self, image: bytes) -> np.ndarray:
        """float32 `shape` in [0, 1]. Raises RefusedImage with the status of the graph."""
        settings = self._settings
        header = self._checked(image)
        plan = make_plan(header, settings)
        try:
            return resized(header.decode(plan.ratio), plan, settings)
        except RefusedImage:
            raise
        except Exception as error:  # whatever the decoders raise
            raise RefusedImage(CORRUPT) from error

    def _checked(self, image: bytes) -> Header:
        """The header of an image that may be decoded."""
        settings = self._settings
        if not image:
            raise RefusedImage(EMPTY)
        if len(image) > settings.max_image_bytes:
            raise RefusedImage(TOO_LARGE)
        header = self._read(image)
        if header is None:
            raise RefusedImage(UNSUPPORTED)
        if header.height <= 0 or header.width <= 0:
            raise RefusedImage(CORRUPT)
        pixels = (header.height * header.width * header.thirds + 2) // 3
        least = -(-settings.max_pixels * MAX_SCANS // MAX_SCANS_EVER)
        if (
            max(header.height, header.width) > settings.max_image_side
            or pixels > settings.max_pixels
            or header.scans > settings.max_pixels * MAX_SCANS // max(pixels, least)
        ):
            raise RefusedImage(TOO_LARGE)
        return header

    def _read(self, image: bytes) -> Header | None:
        """None for an unknown format."""
        exif = self._settings.exif_orientation
        if image.startswith(jpeg.MAGIC):
            return jpeg.read(image, exif=exif)
        if image.startswith(png.MAGIC):
            return png.read(image, exif=exif)
        if gif.looks_like(image):
            return gif.read(image)
        if bmp.looks_like(image):
            return bmp.read(image)
        if self._settings.webp and webp.looks_like(image):
            return webp.read(image, exif=exif)
        return None
