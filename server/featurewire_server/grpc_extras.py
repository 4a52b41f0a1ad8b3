"""Health and reflection for a gRPC server, in lanes of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from featurewire._tfs._pool import POOL

from .errors import ServingError
from .grpc_lanes import Lane

CHECKS = 1024
WATCHES = 1024
"""Health/Watch streams. They hold a thread only while they begin."""
REFLECTIONS = 64
"""Reflection streams. Each holds a thread as long as it is open."""
CHECK_SECONDS = 10.0
REFLECTION_SECONDS = 60.0
"""A reflection stream that asks nothing for so long is ended."""


class Health:
    """The health service of a server; it and the services `names` are SERVING."""

    def __init__(self, server: grpc.Server, names: Sequence[str]) -> None:
        checks = Lane("grpc-check", calls=CHECKS, body_seconds=CHECK_SECONDS, width=CHECKS)
        watches = Lane("grpc-watch", calls=WATCHES, body_seconds=CHECK_SECONDS, width=WATCHES)
        self.lanes = [checks, watches]
        self._servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(
            self._servicer, _InLanes(server, unary=checks, streams=watches)
        )
        for name in ["", *names]:
            self._servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """NOT_SERVING from now on; in a thread of its own, which waits for those who watch."""
        tell = self._servicer.enter_graceful_shutdown
        threading.Thread(target=tell, name="health", daemon=True).start()


def add_reflection(server: grpc.Server, names: Sequence[str]) -> Lane:
    """Serve reflection for the services `names` and for itself."""
    lane = Lane(
        "grpc-reflection",
        calls=REFLECTIONS,
        body_seconds=REFLECTION_SECONDS,
        width=REFLECTIONS,
    )
    names = [*names, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(
        names, _InLanes(server, unary=lane, streams=lane), pool=_Descriptors()
    )
    return lane


class _InLanes:
    """Stands for a server while a service is added, and puts the service's methods into lanes."""

    def __init__(self, server: grpc.Server, *, unary: Lane, streams: Lane) -> None:
        self._server = server
        self._unary = unary
        self._streams = streams

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._server.add_generic_rpc_handlers([_Handlers(each, self._in_lane) for each in handlers])

    def add_registered_method_handlers(self, service: str, handlers: dict) -> None:
        """The same methods once more, for a server that looks them up by their names."""

    def _in_lane(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """All take a stream of requests, so that they begin before the message is there."""
        if handler.unary_unary is not None:
            make = grpc.stream_unary_rpc_method_handler
            behaviour = _answered(self._unary, handler.unary_unary)
        elif handler.unary_stream is not None:
            make = grpc.stream_stream_rpc_method_handler
            behaviour = _watched(self._streams, handler.unary_stream)
        else:
            make = grpc.stream_stream_rpc_method_handler
            behaviour = _conversed(self._streams, handler.stream_stream)
        return make(behaviour, handler.request_deserializer, handler.response_serializer)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(
        self,
        inner: grpc.GenericRpcHandler,
        change: Callable[[grpc.RpcMethodHandler], grpc.RpcMethodHandler],
    ) -> None:
        self._inner = inner
        self._change = change

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handler = self._inner.service(details)
        return None if handler is None else self._change(handler)


def _answered(lane: Lane, behaviour: Callable) -> Callable:
    def call(requests: Iterator, context: grpc.ServicerContext) -> object:
        return behaviour(_message(lane, requests, context), context)

    call.experimental_thread_pool = lane.pool
    return call


def _watched(lane: Lane, behaviour: Callable) -> Callable:
    def call(
        requests: Iterator, context: grpc.ServicerContext, send_response_callback: Callable
    ) -> None:
        message = _message(lane, requests, context)
        behaviour(message, _Callbacks(context, lane), send_response_callback)

    call.experimental_thread_pool = lane.pool
    call.experimental_non_blocking = True  # it answers through the callback, without a thread
    return call


class _Callbacks:
    """A call's context whose callbacks run in a thread of `lane`.

    The health service's own waits for a lock. Whoever holds that may wait for gRPC's thread, on
    which callbacks run otherwise: then the server would stand still for good.
    """

    def __init__(self, context: grpc.ServicerContext, lane: Lane) -> None:
        self._context = context
        self._pool = lane.pool

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return self._context.add_callback(lambda: self._pool.submit(callback))


def _conversed(lane: Lane, behaviour: Callable) -> Callable:
    def messages(requests: Iterator, context: grpc.ServicerContext) -> Iterator:
        while (message := lane.bodies.following(requests, context)) is not None:
            yield message

    def call(requests: Iterator, context: grpc.ServicerContext) -> Iterator:
        _enter(lane, context)
        return behaviour(messages(requests, context), context)

    call.experimental_thread_pool = lane.pool
    return call


def _message(lane: Lane, requests: Iterator, context: grpc.ServicerContext) -> object:
    _enter(lane, context)
    try:
        return lane.bodies.receive(requests, context)
    except ServingError as error:
        context.abort(error.code, error.message)


def _enter(lane: Lane, context: grpc.ServicerContext) -> None:
    try:
        lane.enter(context)
    except ServingError as error:
        context.abort(error.code, error.message)


class _Descriptors:
    """Descriptors for reflection: TensorFlow Serving's private pool, then the default one."""

    def __getattr__(self, name: str) -> Callable:
        def find(*arguments: object) -> object:
            try:
                return getattr(POOL, name)(*arguments)
            except KeyError:
                return getattr(descriptor_pool.Default(), name)(*arguments)

        return find
