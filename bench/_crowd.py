"""Many callers of single images in one process, over gRPC or REST.

The callers share the CPU with the server. To be cheap, they build each request once and do not
parse replies.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio

from featurewire._tfs import types_pb2
from featurewire._tfs.predict_pb2 import PredictRequest

PREDICT = "/tensorflow.serving.PredictionService/Predict"
Send = Callable[[int, float | None], Awaitable[bool]]
"""Send the image with this number and a timeout in seconds. True: answered, False: rejected.

Raises TimeoutError."""


@dataclass
class Tally:
    """Outcomes of calls; times in seconds."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: int = 0

    @property
    def refusal(self) -> float:
        return statistics.median(self.refused) if self.refused else 0.0


def predict_request(
    model: str, image: bytes, *, version: int | None = None, signature: str = ""
) -> bytes:
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    tensor = request.inputs["request" if signature == "manifest" else "image_bytes"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(image)
    return request.SerializeToString()


class Grpc:
    """Calls over this many connections, which nothing else uses."""

    def __init__(self, target: str, requests: list[bytes], connections: int = 4) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(target, options) for _ in range(connections)]
        self._calls = [channel.unary_unary(PREDICT) for channel in self._channels]
        self._requests = requests

    async def __call__(self, number: int, timeout: float | None) -> bool:
        call = self._calls[number % len(self._calls)]
        try:
            await call(self._requests[number % len(self._requests)], timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from error
            if error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
                return False
            raise
        return True

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    @staticmethod
    def answer(target: str, request: bytes) -> bytes:
        """The reply to one call."""
        with grpc.insecure_channel(target) as channel:
            reply: bytes = channel.unary_unary(PREDICT)(request, timeout=60)
            return reply


def rest_body(image: bytes) -> bytes:
    """The body of TensorFlow Serving's REST API for one image."""
    row = {"b64": base64.b64encode(image).decode()}
    return json.dumps({"instances": [row]}).encode()


class Http:
    """POST over keep-alive connections, as many as needed. The server applies its own timeout."""

    def __init__(self, port: int, path: str, bodies: list[bytes], kind: str = "") -> None:
        """`kind`: the content type."""
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._bodies = []
        for body in bodies:
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
            if kind:
                head += f"Content-Type: {kind}\r\n"
            self._bodies.append(f"{head}\r\n".encode() + body)

    async def __call__(self, number: int, timeout: float | None) -> bool:
        async with asyncio.timeout(timeout):
            if self._idle:
                reader, writer = self._idle.pop()
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(self._bodies[number % len(self._bodies)])
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
            except BaseException:
                writer.close()
                raise
        self._idle.append((reader, writer))
        status = int(head.split()[1])
        if status == 504:
            raise TimeoutError
        if status not in (200, 429, 503):
            raise RuntimeError(head.decode())
        return status == 200

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


def rest(port: int, model: str, images: list[bytes]) -> Http:
    """Calls of TensorFlow Serving's REST API with one image each."""
    return Http(port, f"/v1/models/{model}:predict", [rest_body(image) for image in images])


async def one(send: Send, number: int, timeout: float | None, tally: Tally) -> None:
    began = time.perf_counter()
    try:
        answered = await send(number, timeout)
    except TimeoutError:
        tally.late += 1
        return
    (tally.answered if answered else tally.refused).append(time.perf_counter() - began)


async def steady(send: Send, seconds: float, *, callers: int, skip: float = 0.0) -> float:
    """Answers per second in a closed loop of `callers`.

    Runs for `seconds` and ignores the first `skip` seconds.
    """
    began = time.perf_counter()
    numbers, ends = itertools.count(), []

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            tally = Tally()
            await one(send, next(numbers), None, tally)
            if tally.answered:
                ends.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return sum(skip <= end < seconds for end in ends) / (seconds - skip)


async def closed_loop(send: Send, seconds: float, callers: int) -> list[float]:
    """Latencies in seconds of a closed loop of `callers`, which start no call after `seconds`.

    Raises RuntimeError if a call was rejected or timed out.
    """
    began = time.perf_counter()
    numbers, tally = itertools.count(), Tally()

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            await one(send, next(numbers), 60.0, tally)

    await asyncio.gather(*(caller() for _ in range(callers)))
    if tally.refused or tally.late:
        raise RuntimeError(f"{len(tally.refused)} calls were rejected, {tally.late} timed out")
    return tally.answered


async def crowd(send: Send, seconds: float, *, per_second: float, timeout: float) -> Tally:
    """Send calls at Poisson times for `seconds`, then cancel the calls in flight."""
    random_ = random.Random(1)
    tally, tasks = Tally(), set()
    began = due = time.perf_counter()
    for number in itertools.count():
        due += random_.expovariate(per_second)
        if due - began >= seconds:
            break
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        task = asyncio.create_task(one(send, number, timeout, tally))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in list(tasks):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    return tally
