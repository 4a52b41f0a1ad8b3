"""Health and reflection for a gRPC server, in threads that no other call can take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent import futures

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from featurewire._tfs._pool import POOL

THREADS = 64
"""For each of the two. A stream holds one as long as it is open."""


def add_health(server: grpc.Server, names: Sequence[str]) -> health.HealthServicer:
    """Serve health for the server and the services `names`; all are SERVING."""
    pool = futures.ThreadPoolExecutor(THREADS, "grpc-health")
    servicer = health.HealthServicer(experimental_thread_pool=pool)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, _Pooled(server, pool))
    for name in ["", *names]:
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return servicer


def add_reflection(server: grpc.Server, names: Sequence[str]) -> None:
    """Serve reflection for the services `names` and for itself."""
    pool = futures.ThreadPoolExecutor(THREADS, "grpc-reflection")
    names = [*names, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, _Pooled(server, pool), pool=_Descriptors())


class _Pooled:
    """Stands for a server while a service is added, and gives the service's methods a pool."""

    def __init__(self, server: grpc.Server, pool: futures.ThreadPoolExecutor) -> None:
        self._server = server
        self._pool = pool

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        pooled = [_PooledHandlers(handler, self._pool) for handler in handlers]
        self._server.add_generic_rpc_handlers(pooled)

    def add_registered_method_handlers(self, service: str, handlers: dict) -> None:
        """The same methods once more, for a server that looks them up by their names."""


class _PooledHandlers(grpc.GenericRpcHandler):
    def __init__(self, inner: grpc.GenericRpcHandler, pool: futures.ThreadPoolExecutor) -> None:
        self._inner = inner
        self._pool = pool

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handler = self._inner.service(details)
        if handler is None:
            return None
        behaviours = {
            kind: self._with_pool(behaviour)
            for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
            if (behaviour := getattr(handler, kind)) is not None
        }
        return handler._replace(**behaviours)

    def _with_pool(self, behaviour: Callable) -> Callable:
        if getattr(behaviour, "experimental_thread_pool", None) is not None:
            return behaviour

        def call(request: object, context: grpc.ServicerContext) -> object:
            return behaviour(request, context)

        call.experimental_thread_pool = self._pool
        return call


class _Descriptors:
    """Descriptors for reflection: TensorFlow Serving's private pool, then the default one."""

    def __getattr__(self, name: str) -> Callable:
        def find(*arguments: object) -> object:
            try:
                return getattr(POOL, name)(*arguments)
            except KeyError:
                return getattr(descriptor_pool.Default(), name)(*arguments)

        return find
