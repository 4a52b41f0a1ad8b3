"""A server that runs exported versions in OpenVINO does not import TensorFlow, nor need it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featurewire
from featurewire_server.engines.engine import EngineConfig
from featurewire_server.engines.load import load_engine
from tests.server.support import model, spec, stub_for
from tests.support.models import write_tiny_model
from tests.support.process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow  # new interpreters throughout


@pytest.fixture
def without_tensorflow(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that cannot import TensorFlow."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['tensorflow'] = None\n")
    return os.environ | {"PYTHONPATH": str(folder)}


def features(stub, photos: list[Path]) -> np.ndarray:
    return stub.embed(spec("m"), [photo.read_bytes() for photo in photos])


def test_tensorflow_is_not_imported(split_base_path: Path, photos: list[Path], tmp_path: Path):
    log = tmp_path / "log"
    server = ServerProcess(
        "--model_name=m",
        f"--model_base_path={split_base_path}",
        log=log,
        environment=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},  # writes each import
        new_interpreter=True,
    )
    server.start()
    try:
        with stub_for(server.target) as stub:
            found = features(stub, photos)
            reply = stub.metadata(spec("m"), "signature_def")
    finally:
        assert server.stop() == 0
    engine = load_engine(split_base_path / "1", EngineConfig(engine="tensorflow"))
    images = np.array([photo.read_bytes() for photo in photos], object)
    expected = engine.run("serving_default", {"image_bytes": images}, ["features"])["features"]
    np.testing.assert_allclose(found, expected, atol=2.2e-5)
    assert b"serving_default" in reply.metadata["signature_def"].value
    imported = {
        line.rsplit("|", 1)[1].strip().partition(".")[0]
        for line in log.read_text().splitlines()
        if line.startswith("import time:")
    }
    assert "openvino" in imported
    assert not imported & {"tensorflow", "keras", "featurewire_exporter"}


def test_other_models_need_tensorflow_and_say_how_to_get_it(
    split_base_path: Path, photos: list[Path], tmp_path: Path, without_tensorflow: dict[str, str]
):
    write_tiny_model(tmp_path / "tiny", 1)
    models = [model("m", split_base_path), model("tiny", tmp_path / "tiny")]
    config = tmp_path / "models.config"
    listed = "".join(f'config {{ model_platform: "tensorflow" {each} }}' for each in models)
    config.write_text(f"model_config_list {{ {listed} }}")
    server = ServerProcess(
        f"--model_config_file={config}",
        "--max_num_load_retries=0",
        log=tmp_path / "log",
        environment=without_tensorflow,
        new_interpreter=True,
    )
    server.start()
    try:
        with stub_for(server.target) as stub:
            assert features(stub, photos).shape == (len(photos), 24)
            (tiny,) = stub.status(spec("tiny")).model_version_status
    finally:
        assert server.stop() == 0
    assert tiny.status.error_message == (
        f"{tmp_path}/tiny/1 needs TensorFlow (it has no manifest (assets.extra/featurewire.json)). "
        'TensorFlow is not installed: pip install "featurewire-server[tensorflow]"'
    )


def test_a_session_file_needs_tensorflow(
    split_base_path: Path, tmp_path: Path, without_tensorflow: dict[str, str]
):
    (tmp_path / "session").write_text("intra_op_parallelism_threads: 1")
    ended = subprocess.run(
        [sys.executable, "-m", "featurewire_server", f"--model_base_path={split_base_path}"]
        + [f"--tensorflow_session_config_file={tmp_path / 'session'}"],
        env=without_tensorflow,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    assert "TensorFlow is not installed" in ended.stderr.splitlines()[-1]


def test_the_openvino_extra_brings_no_tensorflow_and_serves(
    small_published: Path, photos: list[Path], tmp_path: Path
):
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=120)
    python = environment / "bin" / "python"
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*build, "--wheel-dir", wheels, ROOT / "client", ROOT / "server"], check=True, timeout=250
    )
    client, server_wheel = (
        next(wheels.glob(f"{name}-0*.whl")) for name in ("featurewire", "featurewire_server")
    )
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", client, f"{server_wheel}[openvino]"],
        check=True,
        timeout=500,
    )
    imported = subprocess.run(
        [python, "-c", "import tensorflow"], capture_output=True, text=True, timeout=60
    )
    assert "No module named 'tensorflow'" in imported.stderr
    server = ServerProcess(
        "--model_name=m",
        f"--model_base_path={small_published}",
        log=tmp_path / "log",
        environment={"PATH": os.environ["PATH"]},
        python=str(python),
        new_interpreter=True,
    )
    server.start()
    try:
        with featurewire.Client(server.target, model="m") as embedder:
            assert embedder.embed(photos[0]).vector.shape == (192,)
    finally:
        assert server.stop() == 0
