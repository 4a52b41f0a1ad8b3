"""Encoded images to the network's input, without TensorFlow.

Gives the pixels and the statuses of the graph that `featurewire export` writes, which
`docs/preprocessing.md` describes. Each image is decoded by itself, and the costly steps release the
interpreter's lock, so a pool of threads decodes a batch.

    preprocess    the steps from bytes to pixels
    settings      the settings in the manifest, and the limits that they share
    header        facts from an image's first bytes
    jpeg, …       one module per format: read the header, decode the pixels
    orientation   the EXIF orientation in a TIFF block
    resize        decoded pixels to the network's size
"""

from featurewire_server.preprocess.header import RefusedImage
from featurewire_server.preprocess.preprocess import Preprocess

__all__ = ["Preprocess", "RefusedImage"]
