"""A fake TensorFlow Serving that answers at once, to measure only the client's cost.

`python -m bench._instant_server --dimension 1536` prints its port and serves until its standard
input closes. It answers a line `cpu` there with its CPU time in seconds. It reads only the number
of rows from a request, and sends a reply that it has prepared for that number.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np

from featurewire._tfs import predict_pb2, types_pb2

PREDICT = "/tensorflow.serving.PredictionService/Predict"
VERSION = 1


def rows_of(request: bytes) -> int:
    """The first dimension of the request's only input.

    The shape precedes the values on the wire, so the first bytes are enough.
    """
    for length in (256, 4096, len(request)):
        with contextlib.suppress(IndexError, ValueError):
            return _rows(memoryview(request)[:length])
    raise ValueError("no shape in the request")


def _rows(data: memoryview) -> int:
    # PredictRequest.inputs = 2, its entry's value = 2, TensorProto.tensor_shape = 2,
    # TensorShapeProto.dim = 2, Dim.size = 1.
    for field in (2, 2, 2, 2):
        data = _submessage(data, field)
    number, position = _varint(data, 0)
    if number != 1 << 3:
        raise ValueError("no size")
    return _varint(data, position)[0]


def _submessage(data: memoryview, wanted: int) -> memoryview:
    position = 0
    while True:
        tag, position = _varint(data, position)
        size, after = _varint(data, position)
        if tag & 7 == 2:
            if tag >> 3 == wanted:
                return data[after : after + size]
            position = after + size
        elif tag & 7 == 0:
            position = after
        else:
            raise ValueError("not a PredictRequest")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


@functools.cache
def reply_of(rows: int, dimension: int) -> bytes:
    """A serialised `PredictResponse`, with floats in `float_val` as in TensorFlow Serving."""
    reply = predict_pb2.PredictResponse()
    reply.model_spec.name = "instant"
    reply.model_spec.version.value = VERSION
    reply.model_spec.signature_name = "serving_default"
    features, status = reply.outputs["features"], reply.outputs["status"]
    features.dtype, status.dtype = types_pb2.DT_FLOAT, types_pb2.DT_INT32
    for size in (rows, dimension):
        features.tensor_shape.dim.add(size=size)
    status.tensor_shape.dim.add(size=rows)
    vectors = np.random.default_rng(1).random((rows, dimension), np.float32)
    features.float_val.extend(vectors.reshape(-1).tolist())
    status.int_val.extend([0] * rows)
    return reply.SerializeToString()


def serve(dimension: int) -> None:
    def predict(request: bytes, _context: grpc.ServicerContext) -> bytes:
        return reply_of(rows_of(request), dimension)

    method = grpc.unary_unary_rpc_method_handler(predict)
    service, name = PREDICT.strip("/").split("/")
    server = grpc.server(
        futures.ThreadPoolExecutor(4),
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: method})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    for line in sys.stdin:
        if line.strip() == "cpu":
            print(time.process_time(), flush=True)
    server.stop(None)


class InstantServer:
    """The server in a separate process."""

    def __init__(self, dimension: int = 1536) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench._instant_server", "--dimension", str(dimension)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.target = f"127.0.0.1:{int(self._process.stdout.readline())}"

    def cpu_seconds(self) -> float:
        """CPU time that the server has used until now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print("cpu", file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@contextlib.contextmanager
def instant_server(dimension: int = 1536) -> Iterator[InstantServer]:
    server = InstantServer(dimension)
    try:
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dimension", type=int, default=1536)
    serve(parser.parse_args().dimension)
