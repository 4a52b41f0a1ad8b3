"""Cost of a bridge, compared with the network: calls of both signatures in turn.

Measures the full-size network with a bridge to an older version's space, with one image per call
and then with eight. A pair is one call of each signature, in alternating order. The result is the
median difference, relative to the median native call, with its 95 % interval (by order statistics).

    python -m bench.bridge_cost VERSION_DIR [--pairs N] [ENGINE …]

VERSION_DIR: a version that `featurewire export --bridge-from` made. ENGINE: `session` (plain
TensorFlow on the SavedModel, as in TensorFlow Serving), `tensorflow` and `openvino`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench._photos import SAMPLES
from bench.machine import describe, print_table

ENGINES = ("session", "tensorflow", "openvino")
BATCHES = (1, 8)
WARM_UP = 3
MOST = 0.01
Run = Callable[[str, np.ndarray], object]


def runner(engine: str, version: Path) -> Run:
    """A function that calls a signature with encoded images."""
    if engine == "session":
        from featurewire_exporter.version.artifact import ArtifactSession

        session = ArtifactSession(version)
        return lambda signature, images: session.run(signature, image_bytes=images)
    from featurewire_server.engines.engine import EngineConfig
    from featurewire_server.engines.load import load_engine

    loaded = load_engine(version, EngineConfig(engine=engine))
    return lambda signature, images: loaded.run(signature, {"image_bytes": images}, ["features"])


def measure(run: Run, signature: str, images: np.ndarray, pairs: int) -> list[str]:
    """Milliseconds of a native call, and the bridge's share of it with the share's interval."""

    def seconds(name: str) -> float:
        began = time.perf_counter()
        run(name, images)
        return time.perf_counter() - began

    names = ["serving_default", signature]
    for _ in range(WARM_UP):
        for name in names:
            seconds(name)
    native, added = [], []
    for pair in range(pairs):
        taken = {name: seconds(name) for name in (names if pair % 2 else names[::-1])}
        native.append(taken["serving_default"])
        added.append(taken[signature] - taken["serving_default"])
    median = float(np.median(native))
    reach = 0.98 * np.sqrt(pairs)
    order = np.sort(added) / median
    low = order[max(0, round(pairs / 2 - reach) - 1)]
    high = order[min(pairs - 1, round(pairs / 2 + reach))]
    return [
        f"{1000 * median:.1f}",
        f"{np.median(added) / median:+.2%}",
        f"{low:+.2%} to {high:+.2%}",
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bridge_cost", description=__doc__)
    parser.add_argument("version", type=Path)
    parser.add_argument("engines", nargs="*", choices=[*ENGINES, []], metavar="ENGINE")
    parser.add_argument("--pairs", type=int, default=60)
    options = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    about = json.loads((options.version / "assets.extra" / "featurewire.json").read_text())
    bridge = next(each for each in about["vector_spaces"] if each["bridged"])
    print(describe("tensorflow", "openvino"))
    print(f"{bridge['map']} map, {about['dimension']} to {bridge['dimension']} floats")
    photos = [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))]
    rows = []
    for engine in options.engines or ENGINES:
        run = runner(engine, options.version)
        for batch in BATCHES:
            images = np.array([photos[at % len(photos)] for at in range(batch)], object)
            pairs = max(8, options.pairs // batch)
            figures = measure(run, bridge["signature"], images, pairs)
            rows.append([engine, batch, pairs, *figures])
    print_table(["engine", "images", "pairs", "native ms", "bridge adds", "interval"], rows)
    print(f"wanted: at most {MOST:+.0%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
