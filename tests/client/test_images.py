"""Accepted types of images, and the errors for other types."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

import featurewire
from tests.client.misbehaving import Misbehaving, image, vector_of


@pytest.fixture(scope="module")
def server():
    with Misbehaving() as server:
        yield server


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_an_image(connect, server, kind):
    assert np.array_equal(connect(server.target).embed(kind(image(3))).vector, vector_of(image(3)))


def test_a_path_is_read(connect, server, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(image(4))
    client = connect(server.target)
    assert np.array_equal(client.embed(path).vector, vector_of(image(4)))
    [result] = client.stream([path])
    assert np.array_equal(result.unwrap().vector, vector_of(image(4)))


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg"])
def test_a_path_that_no_file_can_have_is_that_images_error_alone(connect, server, name):
    client = connect(server.target)
    first, second = client.stream([Path(name), image(1)])
    assert first.error is not None
    assert first.error.reason == "unreadable"
    assert second.error is None


def test_a_file_too_large_to_be_an_image_is_not_read(connect, server, tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate((256 << 20) + 1)  # a sparse file
    client = connect(server.target)
    for error in (
        client.embed_batch([path]).errors[0],
        next(iter(client.stream([path]))).error,
    ):
        assert error.reason == "unreadable"
        assert "larger than 256 MiB" in str(error)


def test_a_file_that_is_not_there_is_that_images_error_alone(connect, server, tmp_path):
    client = connect(server.target)
    missing = tmp_path / "missing.jpg"
    with pytest.raises(featurewire.ImageError, match=r"missing\.jpg") as caught:
        client.embed(missing)
    assert caught.value.reason == "unreadable"
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    batch = client.embed_batch([image(1), missing])
    assert list(batch.errors) == [1]
    results = list(client.stream([missing, image(1)]))
    assert [result.error is None for result in results] == [False, True]


MISTAKES = {
    "a path as a str": ("photos/cat.jpg", r"pathlib\.Path\('photos/cat\.jpg'\)"),
    "a URL": ("https://example.org/cat.jpg", "does not fetch URLs"),
    "a data URL": ("data:image/png;base64,AAAA", "does not fetch URLs"),
    "a numpy array": (np.zeros((4, 4, 3), np.uint8), "encode the pixels"),
    "an open file": (io.BytesIO(b"x"), r"file\.read\(\)"),
    "a list": ([b"x"], "embed_batch"),
    "None": (None, "not None"),
    "a number": (7, "not builtins.int"),
}


@pytest.mark.parametrize(("wrong", "advice"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_what_to_do(connect, server, wrong, advice):
    client = connect(server.target)
    with pytest.raises(TypeError, match=advice):
        client.embed(wrong)
    with pytest.raises(TypeError, match=advice):
        client.embed_batch([image(1), wrong])
    results = client.stream([image(1), ("key", wrong)])
    assert next(results).error is None  # earlier images are delivered
    with pytest.raises(TypeError, match=f"item 1: .*{advice}"):
        next(results)


@pytest.mark.parametrize("method", ["embed_batch", "stream"])
@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (b"bytes", r"embed\(image\)"),
        ("text", r"embed\(image\)"),
        (Path("photo.jpg"), r"embed\(image\)"),
        ({"a": b"x"}, r"\.items\(\)"),
        (np.zeros((2, 4, 4, 3)), "encode the pixels"),
        (7, "iterable of images"),
    ],
    ids=["bytes", "str", "path", "dict", "array", "int"],
)
def test_what_is_no_iterable_of_images_is_refused_at_once(connect, server, method, wrong, advice):
    client = connect(server.target)
    with pytest.raises(TypeError, match=advice):
        getattr(client, method)(wrong)


@pytest.mark.parametrize("paired", [False, True])
def test_a_source_may_reuse_its_buffer_for_the_next_image(connect, server, paired):
    buffer = bytearray(image(0))

    def source():
        for number in range(200):
            buffer[:] = image(number)
            yield (number, buffer) if paired else memoryview(buffer)

    for result in connect(server.target).stream(source()):
        assert np.array_equal(result.unwrap().vector, vector_of(image(result.key)))


def test_no_images_at_all(connect, server):
    client = connect(server.target)
    with pytest.raises(ValueError, match=r"stream\(\)"):
        client.embed_batch([])
    assert list(client.stream([])) == []


def test_a_buffer_that_is_reused_keeps_its_image(connect, server):
    buffer = bytearray(image(0))

    def source():
        for number in range(100):
            buffer[:] = image(number)
            yield buffer

    for number, result in enumerate(connect(server.target).stream(source())):
        assert np.array_equal(result.unwrap().vector, vector_of(image(number)))
