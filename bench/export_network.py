"""The network in TensorFlow on a CPU: published versions beside the module they were made from.

`module` is `hub.load`'s signature, what plain TensorFlow Serving runs. The limit is one large
convolution, as TensorFlow runs it, in the same process and the same precision: a network of
convolutions cannot be faster than its convolutions.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench.machine import describe, print_table

BATCHES = (1, 16)
ROUNDS = 3
MULTIPLY_ADDS = 13.18e9
"""Of the network for one image of 299x299 pixels; two operations each."""
CONVOLUTION = ((16, 35, 35, 192), (3, 3, 192, 192))
"""Input and filter of the limit: the network's own kind of size, and no memory traffic to speak
of."""
PRECISIONS = ("float32", "bfloat16")


def main() -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import numpy as np
    import tensorflow as tf

    from featurewire_exporter.fold import fold
    from featurewire_exporter.freeze import freeze
    from featurewire_exporter.module import load_module
    from featurewire_exporter.precision import lower
    from featurewire_exporter.stand_in import write_stand_in

    tf.get_logger().setLevel("ERROR")
    print(describe("tensorflow"))
    images = np.random.default_rng(0).random([max(BATCHES), 299, 299, 3], dtype=np.float32)
    with tempfile.TemporaryDirectory() as directory:
        module = load_module(str(write_stand_in(Path(directory) / "module")))
        frozen = freeze(module)
    folded = fold(frozen)
    runs: dict[str, Callable[[int], object]] = {"module": lambda n: module(images[:n])}
    variants = {"frozen": frozen, **{name: lower(folded, name) for name in PRECISIONS}}
    for name, network in variants.items():
        runs[name], ops = _session(network, images)
        fused = sum(count for op, count in ops.items() if "Fused" in op)
        alone = sum(ops[op] for op in ("Add", "AddV2", "Relu", "Mul", "BiasAdd"))
        print(f"{name}: {fused} fused operations, {alone} additions, scales and ReLUs alone")
    limits = {name: _convolution(tf.as_dtype(name)) for name in PRECISIONS}
    print(f"one convolution: {', '.join(f'{n} {v / 1e9:.0f} GFLOP/s' for n, v in limits.items())},")
    ratio = limits["bfloat16"] / limits["float32"]
    print(f"so bfloat16 can gain {ratio:.1f}x over float32 on this processor\n", flush=True)
    for batch in BATCHES:
        best = _best(runs, batch)
        rows = []
        for name, (wall, cpu) in best.items():
            limit = limits["bfloat16" if name == "bfloat16" else "float32"] / (2 * MULTIPLY_ADDS)
            rows.append(
                [
                    name,
                    f"{batch / wall:.2f}",
                    f"{best['module'][0] / wall:.2f}x",
                    f"{batch / wall / limit:.2f}",
                    f"{1000 * cpu / batch:.0f}",
                    f"{best['module'][1] / cpu:.2f}x",
                ]
            )
        header = ["images/s", "of module", "of limit", "CPU ms an image", "of module"]
        print_table([f"batch {batch}", *header], rows)
        print(flush=True)
    return 0


def _best(runs: dict[str, Callable[[int], object]], batch: int) -> dict[str, tuple[float, float]]:
    """Fewest seconds and fewest CPU seconds of a batch, of each way, taken in turns.

    On a shared machine the CPU seconds are the steadier ones.
    """
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            started, spent = time.perf_counter(), time.process_time()
            run(batch)
            if turn:
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - spent)
    return {name: (min(wall[name]), min(cpu[name])) for name in runs}


def _session(network, images) -> tuple[Callable[[int], object], Counter]:
    """A way to run the first n images, and the operations that TensorFlow made of the graph."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    graph = tf.Graph()
    with graph.as_default():
        (output,) = tf.graph_util.import_graph_def(
            network.graph_def, return_elements=[network.output], name=""
        )
    session = tf1.Session(graph=graph)
    feed = f"{network.input}:0"
    metadata = tf1.RunMetadata()
    session.run(
        output,
        {feed: images[:1]},
        options=tf1.RunOptions(output_partition_graphs=True),
        run_metadata=metadata,
    )
    ops = Counter(node.op for graph in metadata.partition_graphs for node in graph.node)
    return lambda n: session.run(output, {feed: images[:n]}), ops


def _convolution(dtype) -> float:
    """Operations a second of one convolution with bias and ReLU."""
    import numpy as np
    import tensorflow as tf

    tf1 = tf.compat.v1
    shape, kernel = CONVOLUTION
    with tf.Graph().as_default():
        weights = tf.constant(np.full(kernel, 0.01), dtype)
        images = tf1.placeholder(dtype, shape)
        output = tf.nn.relu(
            tf.nn.bias_add(tf.nn.conv2d(images, weights, 1, "SAME"), tf.ones([kernel[3]], dtype))
        )
        with tf1.Session() as session:
            feed = {images: np.ones(shape).astype(dtype.as_numpy_dtype)}
            session.run(output.op, feed)
            times = []
            for _ in range(5 * ROUNDS):
                started = time.perf_counter()
                session.run(output.op, feed)
                times.append(time.perf_counter() - started)
    return 2 * np.prod(shape[:3]) * np.prod(kernel) / min(times)


if __name__ == "__main__":
    sys.exit(main())
