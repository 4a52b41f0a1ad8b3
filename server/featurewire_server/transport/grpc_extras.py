"""The health and reflection services, each with a separate limit on calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from featurewire._tfs._pool import POOL
from featurewire_server.common.errors import ServingError
from featurewire_server.transport.grpc_limits import CallLimit

CHECKS = 1024
WATCHES = 1024
REFLECTIONS = 64
CHECK_SECONDS = 10.0
REFLECTION_SECONDS = 60.0
"""A reflection stream ends after this time without a request."""

HEALTH = "grpc.health.v1.Health"
REFLECTION: str = reflection.SERVICE_NAME


class Health:
    """The health service: the server and the services `names` are SERVING until `stop`.

    We do not use gRPC's implementation. It holds a lock while it writes to a watcher, so a watcher
    that does not read would block all others.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.checks = CallLimit(CHECKS, seconds=CHECK_SECONDS)
        self.watches = CallLimit(WATCHES, seconds=CHECK_SECONDS)
        self._names = {"", *names}
        self._stopping = asyncio.Event()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        return {
            "Check": grpc.stream_unary_rpc_method_handler(
                self._check, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
            ),
            "Watch": grpc.stream_stream_rpc_method_handler(
                self._watch, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
            ),
        }

    def stop(self) -> None:
        """Answer NOT_SERVING from now on, also to open watches."""
        self._stopping.set()

    def _status(self) -> HealthCheckResponse:
        serving = HealthCheckResponse.SERVING
        return HealthCheckResponse(
            status=HealthCheckResponse.NOT_SERVING if self._stopping.is_set() else serving
        )

    async def _check(
        self, _: object, context: grpc.aio.ServicerContext
    ) -> HealthCheckResponse | None:
        request = await _first_message(self.checks, context)
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return self._status()

    async def _watch(self, _: object, context: grpc.aio.ServicerContext) -> None:
        request = await _first_message(self.watches, context)
        if request.service not in self._names:
            await context.write(HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN))
        else:
            await context.write(self._status())
            if not self._stopping.is_set():
                await self._stopping.wait()
                await context.write(self._status())
        await asyncio.Event().wait()  # only the caller ends a watch


class Reflection:
    """The reflection service, which describes the services `names` and itself."""

    def __init__(self, names: Sequence[str]) -> None:
        self.limit = CallLimit(REFLECTIONS, seconds=REFLECTION_SECONDS)
        self._servicer = reflection.aio.ReflectionServicer(
            [*names, REFLECTION], pool=_Descriptors()
        )

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        return {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                self._info,
                ServerReflectionRequest.FromString,
                ServerReflectionResponse.SerializeToString,
            )
        }

    async def _info(self, _: object, context: grpc.aio.ServicerContext) -> None:
        try:
            self.limit.enter(context)
            async for answer in self._servicer.ServerReflectionInfo(
                self._messages(context), context
            ):
                await context.write(answer)
        except ServingError as error:
            await context.abort(error.code, error.message)

    async def _messages(self, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        while (message := await self.limit.next_message(context)) is not None:
            yield message


async def _first_message(limit: CallLimit, context: grpc.aio.ServicerContext) -> Any:
    try:
        limit.enter(context)
        return await limit.message(context, limit.receiving())
    except ServingError as error:
        await context.abort(error.code, error.message)


class _Descriptors:
    """Finds descriptors in TensorFlow Serving's private pool, then in the default pool."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        def find(*arguments: object) -> object:
            try:
                return getattr(POOL, name)(*arguments)
            except KeyError:
                return getattr(descriptor_pool.Default(), name)(*arguments)

        return find
