"""How close each way of running the network comes to the hardware's limit, in process.

The inputs are ready tensors. The limit assumes that the network's convolutions run at the rate of
one large matrix product in the same precision. A ratio above 1 means that they use the caches
better than that product. `plain TensorFlow` is the hub module's own graph, as TensorFlow Serving
would execute it. A quick run omits TensorFlow in bfloat16 and ONNX Runtime, whose model takes a
minute to convert.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench import engines, models
from bench._openvino_network import convolutions, executed, read_network
from bench.results import Figure
from bench.timing import in_turns
from featurewire_server.common import cgroup

PRECISIONS = ("float32", "bfloat16", "int8")
ENGINES = {"TensorFlow": ("float32", "bfloat16"), "OpenVINO": ("float32", "bfloat16", "int8")}
QUICK_ENGINES = {"TensorFlow": ("float32",), "OpenVINO": ("float32", "bfloat16", "int8")}
PRODUCT = (4096, 2048, 2048)
"""Rows, depth and columns of the matrix product. Smaller ones fit into the caches, and are then
slower after a run of the network has filled the caches."""
PLAIN = "plain TensorFlow, float32"
Run = Callable[[], object]


def measure(quick: bool) -> list[Figure]:
    model = read_network(models.stand_in())
    count, work = convolutions(model)
    products, computed = _products()
    figures = [
        Figure(
            table="Limits",
            name="operations per image",
            unit="GFLOP",
            values=[work / 1e9],
            more={"how": f"{count} convolutions of the network's graph, two for each weight used"},
        )
    ]
    rounds = 1 if quick else 5
    times = in_turns(products, 2 * rounds)
    rows, depth, columns = PRODUCT
    for precision, text in computed.items():
        figures.append(
            Figure(
                table="Limits",
                name=f"matrix product, {precision}",
                unit="GFLOP/s",
                values=[2e-9 * math.prod(PRODUCT) / seconds for seconds in times[precision]],
                peers={"of float32": "matrix product, float32"},
                more={"how": f"{rows}x{depth} by {depth}x{columns}, OpenVINO, computed in {text}"},
            )
        )
    ways = _ways(model, quick)
    for batch in (4,) if quick else (1, 16):
        figures += _compared(ways, products, batch, work, rounds if batch > 1 else 3 * rounds)
    return figures


def _compared(
    ways: dict[str, Callable[[np.ndarray], object]],
    products: dict[str, Run],
    batch: int,
    work: float,
    rounds: int,
) -> list[Figure]:
    images = np.random.default_rng(0).random([batch, 299, 299, 3], dtype=np.float32)
    runs = {name: lambda run=run: run(images) for name, run in ways.items()}
    times = in_turns({**products, **runs}, rounds)
    table = f"Batch of {batch}"
    figures = []
    for name, seconds in times.items():
        peers = {"of plain TensorFlow": PLAIN}
        if name in products:
            images_worth = 2 * math.prod(PRODUCT) / work
            title, values = f"limit, {name}", [images_worth / each for each in seconds]
        else:
            title, values = name, [batch / each for each in seconds]
            peers["of the limit"] = f"limit, {name.rsplit(', ', 1)[1]}"
        figures.append(Figure(table=table, name=title, unit="images/s", values=values, peers=peers))
    return figures


def _ways(model: Any, quick: bool) -> dict[str, Callable[[np.ndarray], object]]:
    """Functions that run the network on images, by a name that ends with the precision."""
    import tensorflow as tf

    plain = models.loaded(models.module()).signatures["image_feature_vector"]
    ways: dict[str, Callable[[np.ndarray], object]] = {
        PLAIN: lambda images: plain(images=tf.constant(images))["default"].numpy(),
        **({} if quick else {"ONNX Runtime, float32": _onnx_runtime()}),
        "OpenVINO itself, float32": _openvino(model, "f32"),
        "OpenVINO itself, bfloat16": _openvino(model, "bf16"),
    }
    for title, precisions in (QUICK_ENGINES if quick else ENGINES).items():
        for precision in precisions:
            found = models.stand_in_with(precision)
            if found is not None:
                engine = engines.load(found, title.lower(), precision)
                ways[f"Featurewire's {title} engine, {precision}"] = partial(_features, engine)
    return ways


def _features(engine: Any, images: np.ndarray) -> object:
    return engine.run("image_feature_vector", {"images": images}, ["default"])


def _onnx_runtime() -> Callable[[np.ndarray], object]:
    import onnxruntime

    session = onnxruntime.InferenceSession(models.onnx(), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return lambda images: session.run(None, {entry.name: images})


def _openvino(model: Any, precision: str) -> Callable[[np.ndarray], object]:
    """OpenVINO without this project, compiled per batch size as its latency guide recommends."""
    import openvino as ov

    requests: dict[int, Any] = {}

    def run(images: np.ndarray) -> object:
        if len(images) not in requests:
            fixed = model.clone()
            fixed.reshape(list(images.shape))
            settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
            compiled = ov.Core().compile_model(fixed, "CPU", settings)
            requests[len(images)] = compiled.create_infer_request()
        return requests[len(images)].infer({0: images}, share_inputs=True)

    return run


def _products() -> tuple[dict[str, Run], dict[str, str]]:
    """A matrix product per precision, and the precision in which the CPU really computes it.

    In 8 bits, one operand is quantised during the product, as in a network.
    """
    import openvino as ov

    matrix = np.random.default_rng(0).standard_normal(PRODUCT[:2], np.float32)
    runs: dict[str, Run] = {}
    computed = {}
    for precision in PRECISIONS:
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": cgroup.cores(),
            "NUM_STREAMS": 1,
        }
        model = _product(quantised=precision == "int8")
        compiled = ov.Core().compile_model(model, "CPU", settings)
        request = compiled.create_infer_request()
        runs[precision] = partial(request.infer, {0: matrix}, share_inputs=True)
        (computed[precision],) = executed(compiled)
    return runs, computed


def _product(*, quantised: bool) -> Any:
    import openvino as ov
    from openvino import opset13 as ops

    rows, depth, columns = PRODUCT
    entry = ops.parameter([rows, depth], np.float32)
    weights = np.random.default_rng(1).standard_normal((depth, columns), np.float32)
    left, right = entry, ops.constant(weights)
    if quantised:
        bounds = [np.float32(value) for value in (-4, 4, -4, 4)]
        left = ops.fake_quantize(left, *bounds, 256)
        right = ops.fake_quantize(right, *bounds, 255)
    return ov.Model([ops.matmul(left, right, False, False)], [entry])
