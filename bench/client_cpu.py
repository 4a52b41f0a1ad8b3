"""Processor time that the client spends on an image, request and reply.

Side by side with `tensorflow-serving-api`: the same images of 100 KB, the same requests, the same
server (one that answers at once, in a process of its own), a process for each side. Counted is
all processor time of the process, gRPC's threads included. The sides take turns, and the median
of the rounds is shown; `transport` is the same exchange of ready bytes, which both sides pay.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench._instant_server import PREDICT, instant_server
from bench.machine import describe, print_table

MODEL = "instant"
DIMENSION = 1536
IMAGE_BYTES = 100_000
BATCHES = (1, 16, 64)
ROUNDS = 5
ROUND_IMAGES = 1536
LIMIT = 0.6
SIDES = ("transport", "featurewire", "tensorflow-serving-api")

Call = Callable[[list[bytes]], None]


def transport(target: str, batch: int) -> Call:
    import grpc

    from featurewire._tfs import predict_pb2, types_pb2

    channel = grpc.insecure_channel(target, options=_UNLIMITED)
    call = channel.unary_unary(PREDICT)
    request = predict_pb2.PredictRequest()
    tensor = request.inputs["image_bytes"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.dim.add(size=batch)
    tensor.string_val.extend(_images(batch))
    ready = request.SerializeToString()
    return lambda _images: call(ready)


def featurewire(target: str, batch: int) -> Call:
    from featurewire import Client

    client = Client(target, model=MODEL)

    def call(images: list[bytes]) -> None:
        if client.embed_batch(images).vectors.shape != (batch, DIMENSION):
            raise AssertionError("wrong shape")

    return call


def peer(target: str, batch: int) -> Call:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    stub = prediction_service_pb2_grpc.PredictionServiceStub(
        grpc.insecure_channel(target, options=_UNLIMITED)
    )

    def call(images: list[bytes]) -> None:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = MODEL
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, shape=[batch]))
        reply = stub.Predict(request, timeout=60)
        status = tf.make_ndarray(reply.outputs["status"])
        vectors = tf.make_ndarray(reply.outputs["features"])
        if vectors.shape != (batch, DIMENSION) or status.any():
            raise AssertionError("wrong shape")

    return call


_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_MAKERS = dict(zip(SIDES, (transport, featurewire, peer), strict=True))


def _images(count: int) -> list[bytes]:
    return [bytes([row % 251]) * IMAGE_BYTES for row in range(count)]


def measure(side: str, target: str, batch: int) -> None:
    """The child: for every line on standard input, one round; prints its seconds an image."""
    call = _MAKERS[side](target, batch)
    images = _images(batch)
    for _ in range(5):
        call(images)
    print("ready", flush=True)
    for _ in sys.stdin:
        calls = ROUND_IMAGES // batch
        start = time.process_time()
        for _ in range(calls):
            call(images)
        print((time.process_time() - start) / (calls * batch), flush=True)


class Side:
    def __init__(self, name: str, target: str, batch: int) -> None:
        self.rounds: list[float] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.client_cpu", name, target, str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # TensorFlow greets on standard error whatever its log level is.
            stderr=subprocess.DEVNULL if name == SIDES[-1] else None,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the process of {name} did not start")

    def round(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        self.rounds.append(float(self._process.stdout.readline()))

    def stop(self) -> float:
        """End the process; the median round, in microseconds an image."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        return statistics.median(self.rounds) * 1e6


def main() -> int:
    print(describe("tensorflow", "tensorflow-serving-api", "grpcio", "protobuf"))
    rows, held = [], True
    with instant_server(DIMENSION) as server:
        for batch in BATCHES:
            sides = [Side(name, server.target, batch) for name in SIDES]
            for _ in range(ROUNDS):
                for side in sides:
                    side.round()
            floor, ours, theirs = (side.stop() for side in sides)
            held = held and ours <= LIMIT * theirs
            rows.append(
                [batch, *(f"{each:.0f}" for each in (floor, ours, theirs)), f"{ours / theirs:.2f}"]
            )
    print_table(["images a request", *(f"{name}, us" for name in SIDES), "ratio"], rows)
    print(f"limit of the ratio: {LIMIT}; {'held' if held else 'missed'}")
    return 0 if held else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        parser = argparse.ArgumentParser()
        parser.add_argument("side", choices=SIDES)
        parser.add_argument("target")
        parser.add_argument("batch", type=int)
        arguments = parser.parse_args()
        measure(arguments.side, arguments.target, arguments.batch)
        raise SystemExit(0)
    raise SystemExit(main())
