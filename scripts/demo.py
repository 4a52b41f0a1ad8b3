"""The whole path on one machine: module -> SavedModel -> server -> vectors (run by `make demo`).

Runs the commands a user would run, from the same serving_config/ files that TensorFlow Serving
gets, and stops the server that it started. Only the exported model stays, under build/models/.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import featurewire

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "build" / "models"
SERVING_CONFIG = ROOT / "serving_config"
FEATUREWIRE = Path(sys.executable).with_name("featurewire")
MODEL = "inception_resnet_v2"
READY_TIMEOUT = 180.0  # seconds
STOP_TIMEOUT = 30.0


class DemoError(Exception):
    """Something a user can act on: one line."""


def say(text: str) -> None:
    print(text, flush=True)


def shown(arguments: list[str]) -> list[str]:
    """Print a command as a user would type it, and return it ready to run."""
    text = shlex.join(["featurewire", *arguments]).replace(f"{ROOT}/", "")
    say(f"$ {text}")
    return [str(FEATUREWIRE), *arguments]


def base_path_of(module: str) -> Path:
    """Where this module's versions go: one folder a module, so that none stands in for another."""
    if module == "stand-in":
        return MODELS / "stand-in"
    words = re.sub(r"\W+", "_", module.split("://")[-1]).strip("_")[-40:]
    return MODELS / f"{words}_{hashlib.sha256(module.encode()).hexdigest()[:8]}"


def exported(module: str) -> Path:
    """Export `module` unless a version of it is there; returns the base path."""
    base_path = base_path_of(module)
    versions = [entry for entry in base_path.glob("[0-9]*") if entry.is_dir()]
    if versions:
        say(f"Using the version that is already in {base_path.relative_to(ROOT)}.")
        return base_path
    status = subprocess.run(shown(["export", module, str(base_path)])).returncode
    if status:
        raise DemoError(f"the export of {module} failed; its message is above")
    return base_path


def configs(base_path: Path, folder: Path) -> Path:
    """Copy serving_config/models.config with this machine's base path in place of the volume's."""
    text = (SERVING_CONFIG / "models.config").read_text()
    here = text.replace(f'"/models/{MODEL}"', f'"{base_path}"')
    if here == text:
        raise DemoError(f"serving_config/models.config names no base path /models/{MODEL}")
    target = folder / "models.config"
    target.write_text(here)
    return target


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(models_config: Path, log: Path) -> Iterator[str]:
    """Run `featurewire serve` on a free loopback port; yields its address and stops it."""
    port = free_port()
    command = shown(
        [
            "serve",
            f"--port={port}",
            f"--model_config_file={models_config}",
            "--enable_batching",
            f"--batching_parameters_file={SERVING_CONFIG / 'batching.config'}",
            "--enable_per_model_batching_parameters",
            f"--monitoring_config_file={SERVING_CONFIG / 'monitoring.config'}",
        ]
    )
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_open(port, server, log)
        yield f"127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_open(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise DemoError(f"the server ended with status {server.returncode}: {last_line(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise DemoError(f"the server did not open its port within {READY_TIMEOUT:.0f} s")


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def encoded(image: Image.Image, image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def variants(photo: Path) -> Iterator[tuple[str, bytes]]:
    """The photo as it is, a crop of it, and re-encodings: what a search should find together."""
    yield photo.name, photo.read_bytes()
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    crop = image.crop((width // 10, height // 10, width - width // 10, height - height // 10))
    yield f"{photo.stem}, cropped to 80 %", encoded(crop, "JPEG", quality=90)
    yield f"{photo.stem}, JPEG quality 30", encoded(image, "JPEG", quality=30)
    yield f"{photo.stem}, as PNG", encoded(image, "PNG")


def table(names: list[str], vectors: np.ndarray, version: int) -> None:
    """Print a row an image: its first values, its nearest neighbour and the cosine to it."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1.0)
    wide = max(len(name) for name in names)
    say(
        f"{'file':<{wide}}  {'dim':>5}  {'version':>7}  {'first values':<22}  "
        f"{'nearest neighbour':<{wide}}  {'cosine':>7}"
    )
    for row, name in enumerate(names):
        nearest = int(np.argmax(cosines[row]))
        first = " ".join(f"{value:6.3f}" for value in vectors[row, :3])
        say(
            f"{name:<{wide}}  {vectors.shape[1]:>5}  {version:>7}  {first:<22}  "
            f"{names[nearest]:<{wide}}  {cosines[row, nearest]:>7.4f}"
        )


def demo(module: str, photos: list[Path]) -> None:
    base_path = exported(module)
    with tempfile.TemporaryDirectory(prefix="featurewire-demo-") as scratch:
        folder = Path(scratch)
        models_config = configs(base_path, folder)
        with (
            serving(models_config, folder / "server.log") as target,
            featurewire.Client(target, model=MODEL) as client,
        ):
            client.wait_until_ready(READY_TIMEOUT)
            stand_in = is_stand_in(client)
            images = [variant for photo in photos for variant in variants(photo)]
            started = time.monotonic()
            results = list(client.stream((name, data) for name, data in images))
            seconds = time.monotonic() - started
    good = [result for result in results if result.embedding is not None]
    for result in results:
        if result.error is not None:
            say(f"{result.key}: {result.error}")
    if not good:
        raise DemoError("no photo gave a vector")
    say("")
    vectors = np.stack([np.asarray(result.embedding) for result in good])
    table([str(result.key) for result in good], vectors, good[0].embedding.version)
    say(f"\n{len(good)} vectors in {seconds:.1f} s through gRPC; the server is stopped.")
    if stand_in:
        say(
            "The model is the stand-in: the real network with random weights. Shape, cost and\n"
            "determinism are right; the neighbours mean nothing. With learned weights:\n"
            "  make demo MODULE=https://tfhub.dev/google/imagenet/"
            "inception_resnet_v2/feature_vector/1"
        )


def is_stand_in(client: featurewire.Client) -> bool:
    manifest = client.metadata().manifest or {}
    return bool(manifest.get("module", {}).get("stand_in"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--module", default="stand-in")
    parser.add_argument("--photos", type=Path, default=ROOT / "samples" / "photos")
    arguments = parser.parse_args()
    photos = sorted(
        photo
        for photo in arguments.photos.glob("*")
        if photo.suffix.lower() in {".jpg", ".jpeg", ".png", ".gif", ".bmp"}
    )
    try:
        if not photos:
            raise DemoError(f"no photos in {arguments.photos}; name a folder with PHOTOS=")
        demo(arguments.module, photos)
    except (DemoError, featurewire.FeaturewireError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
