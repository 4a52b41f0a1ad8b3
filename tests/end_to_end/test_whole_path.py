"""The whole path from a module to vectors: the network, a real server process, real photos."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurewire
from tests.support.stand_in import StandIn

FORMATS = ["JPEG", "PNG", "GIF", "BMP"]
REAL_PHOTOS = ["cat", "coffee", "photographer"]


def encoded(photo: Path, image_format: str) -> bytes:
    if image_format == "JPEG":
        return photo.read_bytes()
    buffer = io.BytesIO()
    with Image.open(photo) as image:
        image.convert("RGB").save(buffer, image_format)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(photos: list[Path]) -> dict[str, bytes]:
    """Every chosen photo in every format."""
    chosen = [photo for photo in photos if photo.stem in REAL_PHOTOS]
    assert len(chosen) == len(REAL_PHOTOS)
    return {f"{photo.stem}.{each}": encoded(photo, each) for photo in chosen for each in FORMATS}


@pytest.fixture(scope="module")
def pixels(images: dict[str, bytes], stand_in: StandIn) -> np.ndarray:
    """Pixels of the photos in the published version: float32 [N, 299, 299, 3] in [0, 1]."""
    from featurewire_exporter.version.artifact import ArtifactSession

    with ArtifactSession(stand_in.base_path / "1") as session:
        return session.run("preprocess", image_bytes=list(images.values()))["images"]


@pytest.fixture(scope="module")
def module_vectors(stand_in: StandIn, pixels: np.ndarray) -> np.ndarray:
    """The module's vectors of these pixels: float32 [N, dimension]."""
    import tensorflow as tf

    module = tf.saved_model.load(str(stand_in.module), tags=[])
    return module.signatures["default"](tf.constant(pixels))["default"].numpy()


@pytest.mark.slow
def test_pixels_equal_those_of_another_decoder(images, pixels):
    import tensorflow as tf

    # No JPEG is decoded at a reduced scale, because the photos are small.
    for data, made in zip(images.values(), pixels, strict=True):
        decoded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) / 255
        resized = tf.image.resize(decoded, [299, 299], antialias=True).numpy()
        assert np.abs(made - resized).max() <= 8 / 255
        assert np.abs(made - resized).mean() <= 1.5 / 255


def test_vectors_through_the_whole_path_equal_the_modules(client, images, module_vectors, stand_in):
    batch = client.embed_batch(list(images.values()))
    assert batch.errors == {}
    assert batch.vectors.shape == (len(images), stand_in.dimension)
    assert np.abs(batch.vectors - module_vectors).max() <= 1e-4


def test_one_bad_image_never_fails_its_batch_mates(client, images, stand_in):
    good = images["cat.JPEG"]
    alone = client.embed(good).vector
    batch = client.embed_batch([good, b"", b"just some text", good[: len(good) // 2]])
    reasons = {row: error.reason for row, error in batch.errors.items()}
    assert reasons == {1: "empty", 2: "unsupported", 3: "corrupt"}
    assert np.abs(batch.vectors[0] - alone).max() <= 1e-5
    assert client.embed(good).vector.shape == (stand_in.dimension,)


def test_a_vector_does_not_depend_on_its_batch_mates(client, images):
    first, *others = images.values()
    alone = client.embed(first).vector
    among = client.embed_batch([*others[:4], first]).vectors[4]
    reordered = client.embed_batch([first, *reversed(others[4:7])]).vectors[0]
    assert np.abs(among - alone).max() <= 1e-5
    assert np.abs(reordered - alone).max() <= 1e-5
    # The vectors of different photos must differ; otherwise the lines above prove nothing.
    assert np.abs(client.embed(others[-1]).vector - alone).max() > 1e-3


def test_a_stream_yields_every_image_once_and_in_order(client, images):
    pairs = [(f"{turn}/{name}", data) for turn in range(3) for name, data in images.items()]
    results = list(client.stream(iter(pairs)))
    assert [result.key for result in results] == [key for key, _ in pairs]
    assert all(result.error is None and result.embedding.version == 1 for result in results)


def test_the_served_manifest_says_that_the_module_is_a_stand_in(client, stand_in):
    manifest = client.metadata().manifest
    assert manifest["module"]["stand_in"] is True
    assert manifest["dimension"] == stand_in.dimension
    assert manifest["vector_space"]


def test_a_wrong_model_name_and_a_wrong_address_say_what_to_do(service):
    with (
        featurewire.Client(service.target, model="no_such_model") as client,
        pytest.raises(featurewire.ModelNotFoundError, match="no_such_model"),
    ):
        client.embed(b"\xff\xd8\xff")
    with (
        featurewire.Client("127.0.0.1:1", model="inception_resnet_v2", timeout=2) as client,
        pytest.raises(featurewire.ServerUnavailableError, match=r"127\.0\.0\.1:1"),
    ):
        client.embed(b"\xff\xd8\xff")
