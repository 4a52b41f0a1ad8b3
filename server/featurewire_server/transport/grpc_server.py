"""The gRPC transport: PredictionService, ModelService, health and reflection over an `Api`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from featurewire._tfs import model_service_pb2
from featurewire._tfs.get_model_metadata_pb2 import GetModelMetadataRequest
from featurewire._tfs.get_model_status_pb2 import GetModelStatusRequest
from featurewire._tfs.model_management_pb2 import ReloadConfigRequest
from featurewire._tfs.predict_pb2 import PredictRequest
from featurewire_server._tfs import prediction_service_pb2
from featurewire_server._tfs.classification_pb2 import ClassificationRequest
from featurewire_server._tfs.inference_pb2 import MultiInferenceRequest
from featurewire_server._tfs.open_inference_pb2 import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from featurewire_server._tfs.regression_pb2 import RegressionRequest
from featurewire_server._tfs.ssl_config_pb2 import SSLConfig
from featurewire_server.api import BULK, CLASS, Api, Call
from featurewire_server.batching.task import Terms
from featurewire_server.common.errors import ServingError, invalid_argument
from featurewire_server.common.loop import by_size, run
from featurewire_server.messages.open_inference import InferRequest
from featurewire_server.messages.open_inference import parse as parse_infer
from featurewire_server.transport.grpc_extras import HEALTH, REFLECTION, Health, Reflection
from featurewire_server.transport.grpc_limits import CallLimit
from featurewire_server.transport.open_inference import REFUSED, SERVICE, OpenInference, refused
from featurewire_server.transport.ports import UnixSocket

PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
MODEL = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
MAX_MESSAGE_BYTES = (1 << 31) - 1
MAX_DETAILS = 1024
"""Characters of an error text, because HTTP/2 limits trailers."""
WORK_CALLS = 1024
"""Maximum number of open inference calls (Predict, Classify, …)."""
CONTROL_CALLS = 1024
"""Maximum number of open calls for status and metadata."""
RELOAD_CALLS = 64
CONNECTION_CALLS = 256
"""Maximum number of calls per connection, including reset calls that gRPC still tracks."""
RECEIVING = 64
"""Inference calls whose messages may be received at the same time. The messages of further calls
stay with their callers."""
FREE_RECEIVE_FRACTION = 1 / 16
"""Fraction of the memory for messages. If less is in use, a call stops counting as receiving once
its message has arrived; if more, only when it has been answered."""
BODY_SECONDS = 120.0
"""Time limit for receiving the message of an inference call. It is long, because all messages in
flight may share a slow line."""
CONTROL_BODY_SECONDS = 10.0
FLUSH_SECONDS = 0.5
"""Seconds to write answers that gRPC already counts as sent."""

Method = Callable[[Any, Call], Awaitable[Message]]


@dataclass(frozen=True, kw_only=True)
class GrpcConfig:
    """Addresses, credentials and limits of the gRPC server."""

    port: int = 0
    """0: no TCP port."""
    host: str = "0.0.0.0"
    socket_path: str = ""
    """Empty: no UNIX socket."""
    tls: SSLConfig | None = None
    """Credentials for the TCP port; None: plain text."""
    max_threads: int = 8
    """Maximum number of inference calls that are worked on; others wait."""
    max_connections: int | None = None
    """Maximum number of connections per address; more are closed at once. None: any number."""
    options: tuple[tuple[str, int | str], ...] = ()
    health: bool = False
    open_inference: bool = False


class GrpcServer:
    """A started gRPC server. Call its methods from other threads than the event loop's."""

    def __init__(self, api: Api, config: GrpcConfig) -> None:
        """Start the server. Raises OSError, with the address, if it cannot listen there."""
        run(self._start(api, config))

    async def _start(self, api: Api, config: GrpcConfig) -> None:
        self._api = api
        self._work = CallLimit(
            WORK_CALLS,
            seconds=BODY_SECONDS,
            receiving=RECEIVING,
            working=config.max_threads,
            shared=True,
        )
        self._control = CallLimit(CONTROL_CALLS, seconds=CONTROL_BODY_SECONDS, shared=True)
        self._reload = CallLimit(RELOAD_CALLS, seconds=CONTROL_BODY_SECONDS, working=1)
        self._limits = [self._work, self._control, self._reload]
        services = self._services(config.open_inference)
        self._health: Health | None = None
        if config.health:
            short = [name.rpartition(".")[2] for name in services]
            self._health = Health([*services, HEALTH, *short])
            services[HEALTH] = self._health.handlers()
        services[REFLECTION] = Reflection([*services]).handlers()
        self._server = grpc.aio.server(options=_options(api.admission.limit, config))
        handlers = [grpc.method_handlers_generic_handler(*each) for each in services.items()]
        self._server.add_generic_rpc_handlers(handlers)
        self._socket: UnixSocket | None = None
        self.port = self._listen(config)
        await self._server.start()
        if self._socket is not None:
            self._socket.show()

    def _listen(self, config: GrpcConfig) -> int:
        port = 0
        if config.port:
            address = f"{config.host}:{config.port}"
            try:
                if config.tls is None:
                    port = self._server.add_insecure_port(address)
                else:
                    port = self._server.add_secure_port(address, credentials(config.tls))
            except RuntimeError as error:
                raise OSError(f"cannot listen on {address}: {error}") from error
        if config.socket_path:
            self._socket = UnixSocket(config.socket_path)
            try:
                self._server.add_insecure_port(f"unix:{self._socket.hidden}")
            except RuntimeError as error:
                raise OSError(f"cannot listen on {config.socket_path}: {error}") from error
        return port

    @property
    def open_calls(self) -> int:
        """Number of calls whose answers are not sent yet, without health and reflection."""
        return sum(limit.places.taken for limit in self._limits)

    def drain(self, grace: float) -> None:
        """Refuse new calls as UNAVAILABLE, and wait up to `grace` seconds for the open ones.

        The port stays open. If gRPC closed it, calls that are on their way would get CANCELLED,
        which clients do not retry.
        """
        run(self._drain(grace))

    async def _drain(self, grace: float) -> None:
        if self._health is not None:
            self._health.stop()
        for limit in self._limits:
            limit.drain()
        waiting = [asyncio.ensure_future(limit.wait_for_none()) for limit in self._limits]
        _, late = await asyncio.wait(waiting, timeout=grace)
        for each in late:
            each.cancel()
        if self._socket is not None:
            self._socket.remove()
        # gRPC counts an answer as sent before it is written. Give it time to write.
        await asyncio.sleep(FLUSH_SECONDS)

    def stop(self, grace: float) -> None:
        """Drain and close the port. Before the process exits, call only `drain` instead."""
        self.drain(grace)
        run(self._server.stop(None))

    def _services(self, open_inference: bool) -> dict[str, dict[str, grpc.RpcMethodHandler]]:
        api, work, control = self._api, self._work, self._control
        methods: dict[str, dict[str, tuple[type[Message], Method, CallLimit]]] = {
            PREDICTION: {
                "Predict": (PredictRequest, api.predict, work),
                "Classify": (ClassificationRequest, api.classify, work),
                "Regress": (RegressionRequest, api.regress, work),
                "MultiInference": (MultiInferenceRequest, api.multi_inference, work),
                "GetModelMetadata": (GetModelMetadataRequest, api.get_model_metadata, control),
            },
            MODEL: {
                "GetModelStatus": (GetModelStatusRequest, api.get_model_status, control),
                "HandleReloadConfigRequest": (ReloadConfigRequest, api.reload_config, self._reload),
            },
        }
        if open_inference:
            oip = OpenInference(api)
            methods[SERVICE] = {
                "ModelInfer": (ModelInferRequest, oip.model_infer, work),
                "ModelMetadata": (ModelMetadataRequest, oip.model_metadata, control),
                "ModelReady": (ModelReadyRequest, oip.model_ready, control),
                "ServerLive": (ServerLiveRequest, oip.server_live, control),
                "ServerMetadata": (ServerMetadataRequest, oip.server_metadata, control),
                "ServerReady": (ServerReadyRequest, oip.server_ready, control),
            }
        handlers = {
            service: {name: self._handler(name, *each) for name, each in of.items()}
            for service, of in methods.items()
        }
        if open_inference:
            handlers[SERVICE] |= {name: _refusing(name) for name in REFUSED}
        return handlers

    def _handler(
        self, name: str, kind: type[Message], method: Method, limit: CallLimit
    ) -> grpc.RpcMethodHandler:
        """A handler that receives and returns bytes, so that messages are admitted by size before
        they are parsed."""
        admission = self._api.admission

        async def answer(context: grpc.aio.ServicerContext, call: Call) -> bytes:
            limit.enter(context)
            if kind in (PredictRequest, ModelInferRequest):
                self._api.refuse_early(call)
            async with limit.receiving() as receiving:
                data = await limit.message(context, receiving)
                call.held.resize(len(data))
                if admission.held < FREE_RECEIVE_FRACTION * admission.limit:
                    receiving.release()  # admission counts the message now
                async with limit.working():
                    request = await by_size(len(data), _parse, kind, data)
                    del data
                    response = await method(request, call)
                    del request
                    answer = await by_size(call.answer_bytes, response.SerializeToString)
                    call.held.resize(len(answer))
                    return answer

        async def handle(_: object, context: grpc.aio.ServicerContext) -> bytes:
            call, code = _call(context, self._api, name), grpc.StatusCode.OK
            context.add_done_callback(lambda _: call.held.resize(0))  # the answer has been sent
            try:
                return await answer(context, call)
            except ServingError as error:
                code = error.code
                await context.abort(code, _details(error.message), _trailers(error))
                raise  # not reached
            except asyncio.CancelledError:
                code = call.cancellation_code()
                raise
            finally:
                self._api.count(call, code)

        return grpc.stream_unary_rpc_method_handler(handle)


def _refusing(name: str) -> grpc.RpcMethodHandler:
    async def refuse(_: object, context: grpc.aio.ServicerContext) -> None:
        error = refused(name)
        await context.abort(error.code, error.message)

    return grpc.stream_stream_rpc_method_handler(refuse)


def _call(context: grpc.aio.ServicerContext, api: Api, name: str) -> Call:
    remaining = context.time_remaining()
    return Call(
        terms=Terms(
            deadline=None if remaining is None else time.monotonic() + remaining,
            caller=context.peer(),
            bulk=(CLASS, BULK) in context.invocation_metadata(),
        ),
        held=api.admission.hold(),
        api=name,
    )


def _trailers(error: ServingError) -> tuple[tuple[str, str], ...]:
    """Trailers that say when to retry (gRPC's push-back) and why an overloaded server refuses."""
    found = []
    if error.retry_after is not None:
        found.append(("grpc-retry-pushback-ms", str(math.ceil(error.retry_after * 1000))))
    if error.reason:
        found.append(("featurewire-overload", error.reason))
    return tuple(found)


def credentials(config: SSLConfig) -> grpc.ServerCredentials:
    """TLS from the PEM texts of an SSLConfig; with `client_verify`, mutual TLS."""
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def _options(limit: int, config: GrpcConfig) -> list[tuple[str, int | str]]:
    options: dict[str, int | str] = {
        # Messages that admission could never accept are refused before they are in memory.
        "grpc.max_receive_message_length": min(limit, MAX_MESSAGE_BYTES),
        "grpc.max_send_message_length": -1,
        # Until a handler reads a request, gRPC buffers only its first 64 KiB. With the probe, it
        # would buffer megabytes per request.
        "grpc.http2.bdp_probe": 0,
        # Calls of a host that has lost power end after this time. Clients may also ping: with
        # gRPC's default, their pings would end a call of two minutes.
        "grpc.keepalive_time_ms": 60_000,
        "grpc.keepalive_timeout_ms": 20_000,
        "grpc.http2.min_recv_ping_interval_without_data_ms": 5_000,
        # HTTP/2 rapid reset: a client may send and reset calls faster than gRPC can drop them. It
        # fills only the places of its connection, and is refused beyond them.
        "grpc.max_concurrent_streams": CONNECTION_CALLS,
        "grpc.so_reuseport": 0,  # a second server on a taken port must fail, not share it
    }
    if config.max_connections is not None:
        options["grpc.max_allowed_incoming_connections"] = config.max_connections
    return list((options | dict(config.options)).items())


def _parse(kind: type[Message], data: bytes) -> Message | InferRequest:
    try:
        return parse_infer(data) if kind is ModelInferRequest else kind.FromString(data)
    except DecodeError:
        raise invalid_argument(f"The request is not a {kind.DESCRIPTOR.full_name}") from None


def _details(message: str) -> str:
    return message if len(message) <= MAX_DETAILS else message[:MAX_DETAILS] + "...TRUNCATED"
