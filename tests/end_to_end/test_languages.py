"""The examples of samples/languages against a live embedded server, each compiled first."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from featurewire._tfs import predict_pb2
from tests.client.misbehaving import Misbehaving, reply_to
from tests.support.models import expected_vector
from tests.support.process import ServerProcess, serving

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "build" / "tools" / "node_modules"
IMAGE = b"\xff\xd8\xff and the rest of a photo"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the compiled example."""
    if shutil.which("node") is None or not (MODULES / "@grpc" / "grpc-js").is_dir():
        pytest.skip("no node, or its packages are missing: run `make tools`")
    root = tmp_path_factory.mktemp("typescript")
    folder = shutil.copytree(ROOT / "samples/languages/typescript", root / "samples/languages/ts")
    (root / "protos").symlink_to(ROOT / "protos")
    (root / "node_modules").symlink_to(MODULES)
    compiled = subprocess.run(
        [MODULES / ".bin" / "tsc", "--project", folder], capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stdout
    return ["node", str(folder / "built" / "embed.js")]


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tiny_model, log=tmp_path_factory.mktemp("server") / "log") as server:
        yield server


def embed(
    command: list[str], target: str, image: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, target, "tiny", str(image), *more], capture_output=True, text=True, timeout=120
    )


def check_vector(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["vector"] == expected_vector(IMAGE, version=answer["version"]).tolist()


def test_typescript_gets_the_vector_of_an_image(typescript, server, tmp_path):
    image = tmp_path / "photo.jpg"
    image.write_bytes(IMAGE)
    check_vector(embed(typescript, server.target, image))


def test_typescript_says_why_an_image_has_no_vector(typescript, server, tmp_path):
    image = tmp_path / "text.txt"
    image.write_bytes(b"not an image")
    done = embed(typescript, server.target, image)
    assert (done.returncode, done.stderr) == (1, f"{image}: unsupported\n")


def test_typescript_connects_with_tls(typescript, tiny_model, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    key = certificate.private_key_pem.bytes().decode()
    chain = "".join(blob.bytes().decode() for blob in certificate.cert_chain_pems)
    ssl = tmp_path / "ssl.config"
    ssl.write_text(f"server_key: {json.dumps(key)}\nserver_cert: {json.dumps(chain)}\n")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.cert_pem.bytes())
    image = tmp_path / "photo.jpg"
    image.write_bytes(IMAGE)
    flag = f"--ssl_config_file={ssl}"
    with serving(tiny_model, flag, "--enable_serialization_as_tensor_content=true",
                 log=tmp_path / "log") as secured:  # fmt: skip
        target = secured.target.replace("127.0.0.1", "localhost")
        check_vector(embed(typescript, target, image, str(ca)))


def test_typescript_tries_again_while_a_server_is_unavailable(typescript, tmp_path):
    calls = itertools.count()

    def predict(images: list[bytes], context: grpc.ServicerContext) -> predict_pb2.PredictResponse:
        if next(calls) < 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        return reply_to(images)

    image = tmp_path / "photo.jpg"
    image.write_bytes(IMAGE)
    with Misbehaving(predict) as server:
        done = embed(typescript, server.target, image)
    assert done.returncode == 0, done.stderr
    assert next(calls) == 3
