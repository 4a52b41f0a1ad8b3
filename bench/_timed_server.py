"""The embedded server with a network of fixed speed, so that several servers can share few cores.

`python -m bench._timed_server FIXED PER_IMAGE FLAGS…`: each batch takes FIXED + PER_IMAGE * rows
seconds, and sleeps most of that time. Everything else is the real server.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featurewire_server import process
from featurewire_server.engines.engine import Engine, Patience, endless
from featurewire_server.models import loading


class TimedEngine:
    """An engine that delays each answer to the time that its network would take.

    It runs one batch after the other, because the schedule measures the time of `side_by_side =
    False` in this way.
    """

    side_by_side = False

    def __init__(self, engine: Engine, fixed: float, per_image: float) -> None:
        self._engine = engine
        self._fixed, self._per_image = fixed, per_image
        self._one_batch = threading.Lock()

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience = endless,
    ) -> dict[str, np.ndarray]:
        with self._one_batch:
            started = time.perf_counter()
            found = self._engine.run(signature_name, inputs, outputs, patience)
            rows = len(next(iter(inputs.values())))
            until = started + self._fixed + self._per_image * rows
            time.sleep(max(until - time.perf_counter(), 0))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def main(argv: list[str]) -> int:
    fixed, per_image = map(float, argv[:2])
    # Replace the function in the module where the server looks it up.
    load = vars(loading)["load_engine"]
    vars(loading)["load_engine"] = lambda *args, **kw: TimedEngine(
        load(*args, **kw), fixed, per_image
    )
    return process.main(argv[2:])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
