"""The gRPC transport: PredictionService, ModelService, health and reflection over an `Api`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError, Message

from featurewire._tfs import get_model_status_pb2, model_management_pb2, model_service_pb2
from featurewire._tfs.get_model_metadata_pb2 import GetModelMetadataRequest
from featurewire._tfs.predict_pb2 import PredictRequest

from ._tfs import prediction_service_pb2
from ._tfs.classification_pb2 import ClassificationRequest
from ._tfs.inference_pb2 import MultiInferenceRequest
from ._tfs.regression_pb2 import RegressionRequest
from ._tfs.ssl_config_pb2 import SSLConfig
from .api import Api
from .cancellation import BULK, CLASS, Cancellation
from .errors import ServingError, invalid_argument
from .grpc_extras import Health, add_reflection
from .grpc_lanes import Lane
from .ports import UnixSocket

MAX_MESSAGE_BYTES = (1 << 31) - 1
MAX_DETAILS = 1024  # characters; HTTP/2 trailers are bounded
WORK_CALLS = 1024
"""Calls of Predict and its like that may be there at once; those that wait hold a thread each."""
CONTROL_CALLS = 1024
"""The same for status and metadata."""
CONTROL_WIDTH = 64
RELOAD_CALLS = 64
ALL_CALLS = 8192
"""More than all lanes have: for calls that come faster than they are refused."""
RECEIVING = 64
"""Calls of Predict and its like whose messages are received at once. The others wait with their
callers."""
FREELY_HELD = 1 / 16
"""Of the memory for messages: while those held take less, they do not keep others from coming."""
BODY_SECONDS = 120.0
"""For the message of a call of Predict and its like to come in: slow lines share their speed
among all that is in flight."""
CONTROL_BODY_SECONDS = 10.0
LAST_WORDS = 0.5  # seconds for streams to send them in
FAR_FUTURE = 365 * 24 * 3600.0  # seconds

HEALTH = "grpc.health.v1.Health"

Call = Callable[[Message, "_Times"], Message]


@dataclass(frozen=True, kw_only=True)
class GrpcConfig:
    """Where and how to listen."""

    port: int = 0
    """0: no TCP port."""
    host: str = "0.0.0.0"
    socket_path: str = ""
    """Empty: no UNIX socket."""
    tls: SSLConfig | None = None
    """For the TCP port; None: plain text."""
    max_threads: int = 8
    options: tuple[tuple[str, int | str], ...] = ()
    health: bool = False


class GrpcServer:
    """A started gRPC server."""

    def __init__(self, api: Api, config: GrpcConfig) -> None:
        """Listen and answer. Raises OSError naming the address that cannot be had."""
        self._work = Lane(
            "grpc",
            calls=WORK_CALLS,
            received=RECEIVING,
            body_seconds=BODY_SECONDS,
            width=config.max_threads,
            shared=True,
        )
        self._control = Lane(
            "grpc-control",
            calls=CONTROL_CALLS,
            body_seconds=CONTROL_BODY_SECONDS,
            width=CONTROL_WIDTH,
            shared=True,
        )
        self._reload = Lane(
            "grpc-reload", calls=RELOAD_CALLS, body_seconds=CONTROL_BODY_SECONDS, width=1
        )
        self._answering = [self._work, self._control, self._reload]
        self._lanes = [*self._answering]
        self._server = grpc.server(
            self._work.pool,
            options=_options(api.admission.limit, config.options),
            maximum_concurrent_rpcs=ALL_CALLS,
        )
        services = [prediction_service_pb2, model_service_pb2]
        self._server.add_generic_rpc_handlers([_Handlers(self._methods(api))])
        names = [service.DESCRIPTOR.services_by_name for service in services]
        full_names = [s.full_name for by_name in names for s in by_name.values()]
        self._health = None
        if config.health:
            full_names.append(HEALTH)
            short_names = [name for by_name in names for name in by_name]
            self._health = Health(self._server, [*full_names, *short_names])
            self._lanes += self._health.lanes
        self._lanes.append(add_reflection(self._server, full_names))
        self._socket: UnixSocket | None = None
        self.port = self._listen(config)
        self._server.start()
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

    def drain(self, grace: float) -> None:
        """Refuse new calls as UNAVAILABLE; return when all others have ended, after `grace` seconds
        at the most.

        The port stays open. If gRPC closed it, calls on their way would be answered CANCELLED,
        which clients do not try again.
        """
        until = time.monotonic() + grace
        if self._health is not None:
            self._health.stop()
        for lane in self._answering:
            lane.drain()
            lane.bodies.hurry()
        for lane in self._answering:
            lane.wait_for_none(until)
        if self._socket is not None:
            self._socket.remove()
        # gRPC counts an answer as sent when it is to be written: leave it the time to do so.
        time.sleep(LAST_WORDS)

    def stop(self, grace: float) -> None:
        """Drain and close. A process that ends anyway had better only drain."""
        self.drain(grace)
        # What is open still are streams of health and reflection, which end by themselves never.
        stopped = self._server.stop(None)
        while not stopped.wait(LAST_WORDS + 1):
            self._server.stop(None)  # once more, for a call that had only just been taken in
        for lane in self._lanes:
            lane.close()

    def _methods(self, api: Api) -> dict[str, grpc.RpcMethodHandler]:
        def timed(method: Callable[..., Message]) -> Call:
            return lambda request, times: method(
                request, deadline=times.deadline, cancelled=times.cancelled
            )

        def plain(method: Callable[..., Message]) -> Call:
            return lambda request, times: method(request)

        def reload(request: Message, times: _Times) -> Message:
            return api.reload_config(request, deadline=times.deadline)

        prediction = "/tensorflow.serving.PredictionService/"
        model = "/tensorflow.serving.ModelService/"
        calls: dict[str, tuple[type[Message], Call, Lane]] = {
            prediction + "Predict": (PredictRequest, timed(api.predict), self._work),
            prediction + "Classify": (ClassificationRequest, timed(api.classify), self._work),
            prediction + "Regress": (RegressionRequest, timed(api.regress), self._work),
            prediction + "MultiInference": (
                MultiInferenceRequest,
                timed(api.multi_inference),
                self._work,
            ),
            prediction + "GetModelMetadata": (
                GetModelMetadataRequest,
                plain(api.get_model_metadata),
                self._control,
            ),
            model + "GetModelStatus": (
                get_model_status_pb2.GetModelStatusRequest,
                plain(api.get_model_status),
                self._control,
            ),
            model + "HandleReloadConfigRequest": (
                model_management_pb2.ReloadConfigRequest,
                reload,
                self._reload,
            ),
        }
        return {path: self._handler(api, path, *call) for path, call in calls.items()}

    def _handler(
        self, api: Api, path: str, kind: type[Message], call: Call, lane: Lane
    ) -> grpc.RpcMethodHandler:
        """Bytes in, bytes out: what arrives is admitted by its size before it is parsed."""

        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            times = _Times(context)
            taken = False
            try:
                lane.enter(context)
                with lane.receiving.turn(times.deadline, times.cancelled) as receiving:
                    data = lane.bodies.receive(requests, context, receiving)
                    with api.admission.admit(len(data)):
                        if api.admission.held < FREELY_HELD * api.admission.limit:
                            receiving.lend()  # for good: its message is counted now
                        with lane.working.turn(times.deadline, times.cancelled):
                            request = _parse(kind, data)
                            del data
                            taken = True
                            return call(request, times).SerializeToString()
            except ServingError as error:
                if not taken:  # else it was counted where it failed
                    api.count_refused(path.rpartition("/")[2], error.code)
                if error.retry_after is not None:
                    milliseconds = str(math.ceil(error.retry_after * 1000))
                    context.set_trailing_metadata((("grpc-retry-pushback-ms", milliseconds),))
                context.abort(error.code, _details(error.message))

        handle.experimental_thread_pool = lane.pool
        return grpc.stream_unary_rpc_method_handler(handle)


class _Times:
    """How long a call may take, who calls, and whether the caller has gone."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.deadline = _deadline(context)
        bulk = (CLASS, BULK) in context.invocation_metadata()
        self.cancelled = Cancellation(caller=context.peer(), bulk=bulk)
        if not context.add_callback(self.cancelled.set):  # it is over already
            self.cancelled.set()


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, methods: dict[str, grpc.RpcMethodHandler]) -> None:
        self._methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._methods.get(details.method)


def credentials(config: SSLConfig) -> grpc.ServerCredentials:
    """TLS from the PEM texts of an SSLConfig; with `client_verify`, mutual TLS."""
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def _options(limit: int, extra: tuple[tuple[str, int | str], ...]) -> list[tuple[str, int | str]]:
    options: dict[str, int | str] = {
        # The transport refuses what admission could never take, before it is in memory.
        "grpc.max_receive_message_length": min(limit, MAX_MESSAGE_BYTES),
        "grpc.max_send_message_length": -1,
        # A request that nobody receives yet stays with its caller but for the first 64 KiB of it;
        # with the probe, gRPC would take in megabytes of each.
        "grpc.http2.bdp_probe": 0,
        # A host that lost its power holds its calls no longer than this, and clients may ask as
        # often whether the server lives: by default a call of two minutes is cut off for it.
        "grpc.keepalive_time_ms": 60_000,
        "grpc.keepalive_timeout_ms": 20_000,
        "grpc.http2.min_recv_ping_interval_without_data_ms": 5_000,
        "grpc.so_reuseport": 0,  # a second server on a taken port must fail, not share it
    }
    return list((options | dict(extra)).items())


def _parse(kind: type[Message], data: bytes) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise invalid_argument(f"The request is not a {kind.DESCRIPTOR.full_name}") from None


def _deadline(context: grpc.ServicerContext) -> float | None:
    remaining = context.time_remaining()
    # gRPC says "no deadline" with one in the far future, further than a lock can wait.
    if remaining is None or remaining > FAR_FUTURE:
        return None
    return time.monotonic() + remaining


def _details(message: str) -> str:
    return message if len(message) <= MAX_DETAILS else message[:MAX_DETAILS] + "...TRUNCATED"
