"""A server with every protocol open, for clients that were written for other servers.

The clients run in an environment of their own (`make test-protocols`), the server in the project's.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.support.process import ServerProcess, free_port
from tests.support.project import in_project, project_python

EXPORT = """
import sys
from pathlib import Path
from featurewire_exporter.source.network import Size
from featurewire_exporter.source.stand_in import write_stand_in
write_stand_in(Path(sys.argv[1]), size=Size(divisor=8, blocks=(1, 2, 1)))
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The exported network takes more than 5 s."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


class Server:
    """An exported network, `small`, in a process with every protocol open."""

    def __init__(self, process: ServerProcess, rest_port: int) -> None:
        self.grpc = process.target
        self.rest = f"127.0.0.1:{rest_port}"

    def predict(self, images: list[bytes]) -> tuple[np.ndarray, list[int]]:
        """Vectors of TensorFlow Serving's own API, float32 [N, 192], and each image's status."""
        rows = [{"b64": base64.b64encode(image).decode()} for image in images]
        request = urllib.request.Request(
            f"http://{self.rest}/v1/models/small:predict", json.dumps({"instances": rows}).encode()
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.loads(answer.read())["predictions"]
        vectors = np.array([row["features"] for row in found], np.float32)
        return vectors, [row["status"] for row in found]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("protocols")
    in_project("-c", EXPORT, str(folder / "module"))
    in_project("-m", "featurewire_exporter", "export", f"{folder}/module", f"{folder}/small")
    port = free_port()
    process = ServerProcess(
        "--model_name=small",
        f"--model_base_path={folder}/small",
        f"--rest_api_port={port}",
        "--enable_oip",
        "--enable_openai_embeddings",
        log=folder / "server.log",
        python=project_python(),
    ).start()
    try:
        yield Server(process, port)
    finally:
        process.stop()


@pytest.fixture(scope="session")
def images(photos: list[Path]) -> list[bytes]:
    """Two photos."""
    return [photo.read_bytes() for photo in photos[:2]]


@pytest.fixture(scope="session")
def wanted(server: Server, images: list[bytes]) -> bytes:
    """The vectors of the two photos, as Predict returns them."""
    vectors, _ = server.predict(images)
    return vectors.tobytes()


@pytest.fixture(scope="session")
def odd_images(images: list[bytes]) -> list[bytes]:
    """An animation, a picture that claims 3.6 gigapixels, and files that break off or are text."""
    frames = [PIL.Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    animation, picture = io.BytesIO(), io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    frames[0].save(picture, "PNG")
    header = bytearray(picture.getvalue())
    header[16:24] = struct.pack(">II", 60_000, 60_000)
    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    return [animation.getvalue(), bytes(header), images[0][:5000], b"text", b""]
