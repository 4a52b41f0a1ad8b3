"""Servers with deliberate faults: a gRPC server with scripted replies, and bare sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Self

import grpc
import numpy as np

from featurewire._tfs import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    tensor_pb2,
    types_pb2,
)

MODEL = "tiny"
DIMENSION = 8
JPEG = b"\xff\xd8\xff"


def image(number: int) -> bytes:
    """A good image, different for each number."""
    return JPEG + number.to_bytes(4, "big")


def vector_of(data: bytes, version: int = 1) -> np.ndarray:
    """The server's vector for an image: float32 [DIMENSION]."""
    number = int.from_bytes(data[3:7], "big")
    return np.arange(DIMENSION, dtype=np.float32) + np.float32(number) + np.float32(version) / 10


def reply_to(
    images: list[bytes],
    *,
    version: int = 1,
    dimension: int = DIMENSION,
    rows: int | None = None,
    dtype: int = types_pb2.DT_FLOAT,
    output: str = "features",
    status: bool = True,
    content: bool = False,
    shape: list[int] | None = None,
) -> predict_pb2.PredictResponse:
    """A reply, correct by default."""
    reply = predict_pb2.PredictResponse()
    reply.model_spec.name = MODEL
    reply.model_spec.version.value = version
    codes = [0 if each.startswith(JPEG) else 2 if each else 1 for each in images]
    vectors = [
        np.resize(vector_of(each, version), dimension)
        if not code
        else np.full(dimension, np.nan, np.float32)
        for each, code in zip(images, codes, strict=True)
    ]
    count = len(images) if rows is None else rows
    vectors = (vectors * (count + 1))[:count] if vectors else []
    flat = np.concatenate(vectors) if vectors else np.empty(0, np.float32)
    features = _tensor(dtype, shape if shape is not None else [count, dimension])
    if content:
        features.tensor_content = flat.astype("<f4").tobytes()
    elif dtype == types_pb2.DT_DOUBLE:
        features.double_val.extend(flat.tolist())
    elif dtype == types_pb2.DT_INT32:
        features.int_val.extend([0] * flat.size)
    else:
        features.float_val.extend(flat.tolist())
    reply.outputs[output].CopyFrom(features)
    if status:
        tensor = _tensor(types_pb2.DT_INT32, [len(codes)])
        if content:
            tensor.tensor_content = np.array(codes, "<i4").tobytes()
        else:
            tensor.int_val.extend(codes)
        reply.outputs["status"].CopyFrom(tensor)
    return reply


def _tensor(dtype: Any, shape: list[int]) -> tensor_pb2.TensorProto:
    tensor = tensor_pb2.TensorProto(dtype=dtype)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


Predict = Callable[[list[bytes], grpc.ServicerContext], "predict_pb2.PredictResponse"]


class Misbehaving:
    """A server in this process; `predict` computes the reply to a request."""

    def __init__(
        self,
        predict: Predict | None = None,
        *,
        threads: int = 16,
        credentials: grpc.ServerCredentials | None = None,
        port: int = 0,
        outputs: tuple[str, ...] = ("features", "status"),
        input_name: str = "image_bytes",
        metadata: bool = True,
        dimension: int = DIMENSION,
    ) -> None:
        self.predict = predict or (lambda images, _context: reply_to(images))
        self.states: list[tuple[int, int]] = [(1, 30)]
        self.labels = {"stable"}
        self.signatures: tuple[str, ...] = ("serving_default",)
        """Names of the signatures in the metadata, all with the same tensors."""
        self.outputs = outputs
        self.input_name = input_name
        self.metadata = metadata
        self.dimension = dimension
        """Dimension in the signature; -1: any."""
        self.requests: list[predict_pb2.PredictRequest] = []
        self.call_metadata: list[dict[str, str | bytes]] = []
        self.compressed: list[str] = []
        self.seen: Counter[bytes] = Counter()
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        self._threads, self._credentials, self.port = threads, credentials, port
        self._server: grpc.Server | None = None

    @property
    def target(self) -> str:
        return f"localhost:{self.port}" if self._credentials else f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        server = grpc.server(
            futures.ThreadPoolExecutor(self._threads),
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        server.add_generic_rpc_handlers([_Handlers(self)])
        if self._credentials:
            self.port = server.add_secure_port(f"127.0.0.1:{self.port}", self._credentials)
            # The other address of localhost, where there is one. For `localhost:0` gRPC takes a
            # port that is free there, and does without 127.0.0.1 if it is in use here.
            with contextlib.suppress(RuntimeError):
                server.add_secure_port(f"[::1]:{self.port}", self._credentials)
        else:
            self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait(60)
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def on_predict(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        request = predict_pb2.PredictRequest.FromString(data)
        images = list(request.inputs[self.input_name].string_val)
        with self._lock:
            self.requests.append(request)
            self.call_metadata.append(dict(context.invocation_metadata()))
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.predict(images, context)
        finally:
            with self._lock:
                self.in_flight -= 1
        with self._lock:
            self.seen.update(images)
        return reply if isinstance(reply, bytes) else reply.SerializeToString()

    def on_metadata(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest.FromString(data)
        label = request.model_spec.version_label
        if label and label not in self.labels:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}"
            )
        if not self.metadata:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key in self.signatures:
            signature = signatures.signature_def[key]
            signature.inputs[self.input_name].dtype = types_pb2.DT_STRING
            signature.inputs[self.input_name].tensor_shape.dim.add(size=-1)
            for name in self.outputs:
                info = signature.outputs[name]
                info.dtype = types_pb2.DT_INT32 if name == "status" else types_pb2.DT_FLOAT
                info.tensor_shape.dim.add(size=-1)
                if name != "status":
                    info.tensor_shape.dim.add(size=self.dimension)
        reply = get_model_metadata_pb2.GetModelMetadataResponse()
        reply.model_spec.name = MODEL
        reply.model_spec.version.value = 1
        reply.metadata["signature_def"].Pack(signatures)
        return reply.SerializeToString()

    def on_status(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        reply = get_model_status_pb2.GetModelStatusResponse()
        for version, state in self.states:
            reply.model_version_status.add(version=version, state=state)
        return reply.SerializeToString()


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, server: Misbehaving) -> None:
        self._methods = {
            "/tensorflow.serving.PredictionService/Predict": server.on_predict,
            "/tensorflow.serving.PredictionService/GetModelMetadata": server.on_metadata,
            "/tensorflow.serving.ModelService/GetModelStatus": server.on_status,
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = self._methods.get(details.method)
        return grpc.unary_unary_rpc_method_handler(method) if method else None


class Sockets:
    """Accepts connections, and runs `handle` for each on a new thread."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._open: list[socket.socket] = []
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._handle(connection)

    def close(self) -> None:
        self._closed = True
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def __enter__(self) -> Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def http_server() -> Sockets:
    """Answers every input like a web server."""

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        body = b"<html>404</html>"
        connection.sendall(
            b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        )

    return Sockets(handle)


def silent_server() -> Sockets:
    """Accepts connections, reads, and never answers."""

    def handle(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    return Sockets(handle)


def cutting_proxy(port: int, *, reply_bytes: Callable[[int], int | None]) -> Sockets:
    """Forwards bytes to `port` and back, and cuts connections in the middle of a reply.

    `reply_bytes(n)`: bytes after which the n-th connection (from 1) is cut; None: never.
    """
    counter, lock = [0], threading.Lock()

    def handle(connection: socket.socket) -> None:
        with lock:
            counter[0] += 1
            left = reply_bytes(counter[0])
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            threading.Thread(target=_pump, args=(connection, upstream), daemon=True).start()
            while data := upstream.recv(65536):
                if left is not None:
                    data, left = data[:left], left - len(data)
                connection.sendall(data)
                if left is not None and left <= 0:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return

    return Sockets(handle)


def muting_proxy(port: int, muted: threading.Event) -> Sockets:
    """Forwards bytes to `port` and back until `muted` is set; then drops all, and closes nothing.

    This is how a host without power looks.
    """

    def handle(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            threading.Thread(target=_pump, args=(connection, upstream), daemon=True).start()
            while data := upstream.recv(65536):
                if not muted.is_set():
                    connection.sendall(data)

    return Sockets(handle)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def eventually(seconds: float = 10.0) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """A poll with a timeout: `until(condition)` returns when it is true, and fails if it never
    is."""
    deadline = time.monotonic() + seconds

    def until(condition: Callable[[], bool]) -> None:
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)

    yield until
