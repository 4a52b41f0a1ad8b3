"""Run the Compose stack for real: build, export, serve, embed, search, roll out, scrape, switch.

Runs the commands of docs/compose.md on free ports, in a separate project that is removed at the
end. `make test-stack` runs it. Without a Docker engine it says so and does nothing.

The module is EfficientNet-Lite0, a small network with learned weights. The first version comes from
a local folder and the second from an archive. With `--stand-in` it is the full-size stand-in, which
takes twice as long. The `cpu` profile uses the embedded server's image instead of TensorFlow
Serving's, and is otherwise unchanged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FEATUREWIRE = Path(sys.executable).with_name("featurewire")
PHOTOS = ROOT / "samples" / "photos"
MODEL = "inception_resnet_v2"
OTHER = "https://hub.example.com/another/module"
PROFILES = ("cpu", "embedded", "tools", "search", "monitoring")
SLOW = 1800.0  # seconds; only a safeguard


class Failed(Exception):
    """The expected and the actual result, in one line."""


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


STARTED = time.monotonic()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Stack:
    """The Compose project under test, and its settings."""

    def __init__(self, folder: Path, stand_in: bool) -> None:
        self.first, self.second = ("stand-in",) * 2 if stand_in else ("lite0", "./lite0.tar.gz")
        self.modules, self.photos = folder / "modules", folder / "photos"
        self.modules.mkdir()
        self.images: list[str] = []
        self.config = folder / "serving_config"
        shutil.copytree(ROOT / "serving_config", self.config)
        for path in (self.config, *self.config.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)  # for any user of the containers
        self.grpc, self.rest, self.prometheus, self.search = free_ports(4)
        self.name = f"featurewire-test-{os.getpid()}"
        self.environment = os.environ | {
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_PROFILES": "",
            "SERVING_CONFIG": str(self.config),
            "GRPC_PORT": str(self.grpc),
            "REST_PORT": str(self.rest),
            "PROMETHEUS_PORT": str(self.prometheus),
            "SEARCH_PORT": str(self.search),
            "MODULE": self.first,
            "MODULE_DIR": str(self.modules),
            "PHOTOS": str(self.photos),
        }
        authorities = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        if authorities:
            self.environment.setdefault("CA_BUNDLE", authorities)

    def compose(self, *arguments: str, status: int = 0, **environment: str) -> str:
        """Run `docker compose ARGUMENTS`. Raises Failed unless it exits with `status`."""
        return self.run(["docker", "compose", *arguments], status=status, **environment)

    def run(self, command: list[str], *, status: int = 0, **environment: str) -> str:
        say("$ " + " ".join([*(f"{k}={v}" for k, v in environment.items()), *command]))
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SLOW,
        )
        if done.returncode != status:
            tail = "\n".join(done.stdout.splitlines()[-30:])
            raise Failed(f"exit status {done.returncode} instead of {status}:\n{tail}")
        return done.stdout

    def embed(self, *options: str) -> int:
        """Embed the sample photos through the published port; returns the version."""
        import featurewire

        server = f"127.0.0.1:{self.grpc}"
        output = self.config.parent / f"vectors-{time.monotonic_ns()}.jsonl"
        self.run(
            [str(FEATUREWIRE), "embed", str(PHOTOS), "--server", server, "--model", MODEL]
            + ["--output", str(output), *options]
        )
        lines = output.read_text().splitlines()
        photos = len(list(PHOTOS.glob("*.jpg")))
        expect(len(lines) == photos, f"{photos} vectors, not {len(lines)}")
        label = options[-1] if options else None
        with featurewire.Client(server, model=MODEL, label=label) as client:
            return client.embed(sorted(PHOTOS.glob("*.jpg"))[0]).version


def expect(true: bool, text: str) -> None:
    if not true:
        raise Failed(f"expected: {text}")


def why_not() -> str | None:
    """Why the stack cannot run here, or None if it can."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    engine = subprocess.run(["docker", "info"], capture_output=True, text=True)
    if engine.returncode:
        return "the Docker engine does not answer"
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return "Compose v2 is not installed"
    base = os.environ.get("PYTHON_IMAGE", "python:3.11-slim")
    for command in (["image", "inspect", base], ["pull", "-q", base]):
        if subprocess.run(["docker", *command], capture_output=True).returncode == 0:
            return None
    return f"the base image {base} is missing and cannot be pulled"


@contextlib.contextmanager
def project(stand_in: bool) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="featurewire-stack-") as folder:
        Path(folder).chmod(0o755)
        stack = Stack(Path(folder), stand_in)
        everything = [f"--profile={name}" for name in PROFILES]
        try:
            yield stack
        except Failed:
            print(stack.compose(*everything, "logs", "--tail=40"), file=sys.stderr)
            raise
        finally:
            stack.compose(*everything, "down", "--volumes", "--rmi=local", "--timeout=20")
            if stack.images:
                stack.run(["docker", "image", "rm", "--force", *stack.images])


def prepare(stack: Stack) -> None:
    """Write the module, and enough pictures for a rollout check."""
    from tests.support.pictures import write_tiles

    write_tiles(sorted(PHOTOS.glob("*.jpg")), stack.photos, 72)
    if stack.first == "lite0":
        code = "import sys; from pathlib import Path; from tests.support.learned import *; "
        code += "write_learned_module(Path(sys.argv[1]))"
        stack.run([sys.executable, "-c", code, str(stack.modules / "lite0")], PYTHONPATH=str(ROOT))
        stack.run(
            ["tar", "-C", str(stack.modules / "lite0"), "-czf"]
            + [str(stack.modules / "lite0.tar.gz"), "."]
        )


def build(stack: Stack) -> None:
    stack.compose("--profile=embedded", "--profile=tools", "--profile=search", "build")
    for image in ("exporter", "serving-embedded", "rollout", "search"):
        size = stack.run(
            ["docker", "image", "inspect", "--format={{.Size}}", f"{stack.name}-{image}"]
        )
        say(f"image {image}: {int(size) / 1e9:.2f} GB")


def start(stack: Stack) -> None:
    stack.compose("--profile", "embedded", "up", "-d", "--wait")
    url = f"http://127.0.0.1:{stack.rest}/v1/models/{MODEL}"
    with urllib.request.urlopen(url, timeout=10) as answer:  # healthy means that it answers
        states = json.load(answer)["model_version_status"]
    expect([each["state"] for each in states] == ["AVAILABLE"], "version 1 AVAILABLE once healthy")
    expect(stack.embed() == 1, "vectors of version 1")


def confined(stack: Stack) -> None:
    """Check that the container runs without root, capabilities and writable folders."""
    inside = (
        "id -u; grep CapEff /proc/self/status; touch /x 2>&1; touch /models/x 2>&1; touch /tmp/x"
    )
    found = stack.compose("exec", "-T", "serving-embedded", "sh", "-c", inside)
    expect(found.startswith("1000\n"), "user 1000")
    expect("CapEff:\t0000000000000000" in found, "no capabilities")
    expect(found.count("Read-only file system") == 2, "only /tmp is writable")


def search(stack: Stack) -> None:
    """Check that the page indexes the photos and finds an uploaded one."""
    stack.compose("--profile", "search", "up", "-d", "--wait", "search")
    address = f"http://127.0.0.1:{stack.search}"
    photos = len(list(stack.photos.iterdir()))
    deadline = time.monotonic() + 120
    while True:
        with urllib.request.urlopen(f"{address}/api/status", timeout=10) as answer:
            status = json.load(answer)
        if status["index"] and status["index"]["photos"] == photos:
            break
        if time.monotonic() > deadline:
            raise Failed(f"{photos} photos are not indexed: {status}")
        time.sleep(1)
    photo = min(stack.photos.iterdir())
    with urllib.request.urlopen(f"{address}/api/search", photo.read_bytes(), 30) as answer:
        nearest = json.load(answer)["neighbours"][0]
    expect(nearest["path"] == photo.name, f"{photo.name} to be its own nearest, not {nearest}")
    with urllib.request.urlopen(f"{address}/", timeout=10) as answer:
        expect(b"<html" in answer.read(), "the page itself")
    stack.compose("--profile", "search", "rm", "--stop", "--force", "search")


def other_module(stack: Stack) -> None:
    said = stack.compose("run", "--rm", "exporter", status=1, MODULE=OTHER)
    expect(f"holds version 1 of {stack.first}" in said, "the module that the volume holds")
    expect(f"docker compose run --rm exporter export {OTHER}" in said, "how to add the other")


def second_version(stack: Stack) -> None:
    said = stack.compose("run", "--rm", "exporter", "export", stack.second)
    expect(said.splitlines()[-1] == f"/models/{MODEL}/2", "version 2")


def rollout(stack: Stack) -> None:
    step = ["run", "--rm", "rollout", "run", "--version", "2", "--images", "/photos"]
    stack.compose("--profile", "tools", *step, "--no-crops", "--watch", "10")
    expect(stack.embed("--label", "stable") == 2, "stable is version 2")


def prune(stack: Stack) -> None:
    keep = ["run", "--rm", "exporter", "prune", "--keep", "1"]
    expect("removed" not in stack.compose(*keep), "version 1 is kept for a rollback")
    stack.compose("--profile", "tools", "run", "--rm", "rollout", "retire")
    expect("removed version 1" in stack.compose(*keep), "version 1 is removed once it is retired")


def prometheus_image(stack: Stack) -> str | None:
    """An image of Prometheus: the pinned one, or one made from Debian's package."""
    image = next(
        line.partition("=")[2]
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line.startswith("PROMETHEUS_IMAGE=")
    )
    if subprocess.run(["docker", "pull", "-q", image], capture_output=True).returncode == 0:
        return image
    programs = [shutil.which(name) for name in ("prometheus", "promtool")]
    if None in programs:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for program in programs:
            shutil.copy(str(program), folder)
        (Path(folder) / "Dockerfile").write_text(
            "FROM python:3.11-slim\nCOPY prometheus promtool /usr/bin/\n"
            'RUN install -d -o nobody /prometheus\nENTRYPOINT ["prometheus"]\n'
        )
        own = f"{stack.name}-prometheus"
        stack.images.append(own)
        stack.run(["docker", "build", "-q", "-t", own, folder], DOCKER_BUILDKIT="0")
    say("Prometheus' image cannot be pulled; using an image with Debian's package instead")
    return own


def scrape(stack: Stack) -> None:
    image = prometheus_image(stack)
    if image is None:
        say("SKIPPED: Prometheus' image cannot be pulled, and Debian's is not installed")
        return
    stack.compose(
        "--profile", "monitoring", "up", "-d", "--wait", "prometheus", PROMETHEUS_IMAGE=image
    )
    query = f'sum(:tensorflow:serving:request_count{{model_name="{MODEL}",status="OK"}})'
    address = f"http://127.0.0.1:{stack.prometheus}/api/v1/query?query="
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(address + urllib.parse.quote(query), timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        if result and float(result[0]["value"][1]) > 0:
            say(f"Prometheus counts {result[0]['value'][1]} requests")
            return
        time.sleep(1)
    raise Failed("Prometheus has not seen the server's requests")


def switch(stack: Stack) -> None:
    """Run TensorFlow Serving's profile with the embedded server's image."""
    stack.compose("--profile", "embedded", "stop")
    code = stack.run(
        ["docker", "inspect", "--format={{.State.ExitCode}}", f"{stack.name}-serving-embedded-1"]
    )
    expect(code.strip() == "0", "the server drains and ends with status 0")
    image = f"{stack.name}-serving-embedded"
    up = ["--profile", "cpu", "up", "-d", "--wait"]
    if stack.first != stack.second:  # the volume no longer has a version of the first module
        said = stack.compose(*up, status=1, SERVING_CPU_IMAGE=image)
        expect("exit 1" in said, "the exporter refuses to serve another module silently")
        stack.environment["MODULE"] = ""
    stack.compose(*up, SERVING_CPU_IMAGE=image)
    running = stack.compose(
        "--profile", "cpu", "exec", "-T", "serving-cpu", "cat", "/proc/1/cmdline"
    )
    expect("featurewire_server" in running, "tensorflow_model_server is the embedded server")
    expect(stack.embed("--label", "stable") == 2, "version 2, label stable, after the restart")


STEPS = [
    prepare,
    build,
    start,
    confined,
    scrape,
    search,
    other_module,
    second_version,
    rollout,
    prune,
    switch,
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="stack test", description=__doc__.splitlines()[0])
    parser.add_argument("--stand-in", action="store_true", help="the full-size network")
    options = parser.parse_args()
    reason = why_not()
    if reason is not None:
        print(f"stack test: SKIPPED: {reason}; docs/compose.md says what it needs")
        return 0
    try:
        with project(options.stand_in) as stack:
            for step in STEPS:
                say(f"== {step.__name__.replace('_', ' ')}")
                step(stack)
    except Failed as error:
        print(f"stack test: FAILED: {error}", file=sys.stderr)
        return 1
    say(f"stack test: {len(STEPS)} passed, 0 failed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
