"""The gRPC transport: PredictionService, ModelService, health and reflection over an `Api`."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from featurewire._tfs import get_model_status_pb2, model_management_pb2, model_service_pb2
from featurewire._tfs._pool import POOL
from featurewire._tfs.get_model_metadata_pb2 import GetModelMetadataRequest
from featurewire._tfs.predict_pb2 import PredictRequest

from ._tfs import prediction_service_pb2
from ._tfs.classification_pb2 import ClassificationRequest
from ._tfs.inference_pb2 import MultiInferenceRequest
from ._tfs.regression_pb2 import RegressionRequest
from ._tfs.ssl_config_pb2 import SSLConfig
from .api import Api
from .cancellation import Cancellation
from .errors import ServingError, invalid_argument

MAX_MESSAGE_BYTES = (1 << 31) - 1
MAX_DETAILS = 1024  # characters; HTTP/2 trailers are bounded
CONTROL_THREADS = 2
FAR_FUTURE = 365 * 24 * 3600.0  # seconds

Call = Callable[[Message, grpc.ServicerContext], Message]


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
        self._control = futures.ThreadPoolExecutor(CONTROL_THREADS, "grpc-control")
        self._reload = futures.ThreadPoolExecutor(1, "grpc-reload")  # reloads wait for loads
        self._server = grpc.server(
            futures.ThreadPoolExecutor(config.max_threads, "grpc"),
            options=_options(api.admission.limit, config.options),
        )
        services = [prediction_service_pb2, model_service_pb2]
        self._server.add_generic_rpc_handlers([_Handlers(self._methods(api))])
        names = [service.DESCRIPTOR.services_by_name for service in services]
        full_names = [s.full_name for by_name in names for s in by_name.values()]
        self._health: health.HealthServicer | None = None
        if config.health:
            self._health = health.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
            full_names.append(health.SERVICE_NAME)
            for name in ["", *full_names]:
                self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection(
            [*full_names, reflection.SERVICE_NAME], self._server, pool=_Pools()
        )
        self.port = self._listen(config)
        self._server.start()

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
            try:
                self._server.add_insecure_port(f"unix:{config.socket_path}")
            except RuntimeError as error:
                raise OSError(f"cannot listen on {config.socket_path}: {error}") from error
        return port

    def stop(self, grace: float) -> None:
        """Accept nothing new; return when all in flight has ended, `grace` seconds at the most."""
        if self._health is not None:
            self._health.enter_graceful_shutdown()
        self._server.stop(grace).wait()
        for pool in (self._control, self._reload):
            pool.shutdown(wait=False)

    def _methods(self, api: Api) -> dict[str, grpc.RpcMethodHandler]:
        def timed(method: Callable[..., Message]) -> Call:
            def call(request: Message, context: grpc.ServicerContext) -> Message:
                cancelled = Cancellation()
                context.add_callback(cancelled.set)
                return method(request, deadline=_deadline(context), cancelled=cancelled)

            return call

        def plain(method: Callable[..., Message]) -> Call:
            return lambda request, context: method(request)

        def reload(request: Message, context: grpc.ServicerContext) -> Message:
            return api.reload_config(request, deadline=_deadline(context))

        prediction = "/tensorflow.serving.PredictionService/"
        model = "/tensorflow.serving.ModelService/"
        calls: dict[str, tuple[type[Message], Call, futures.ThreadPoolExecutor | None]] = {
            prediction + "Predict": (PredictRequest, timed(api.predict), None),
            prediction + "Classify": (ClassificationRequest, timed(api.classify), None),
            prediction + "Regress": (RegressionRequest, timed(api.regress), None),
            prediction + "MultiInference": (
                MultiInferenceRequest,
                timed(api.multi_inference),
                None,
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
        return {path: self._handler(api, *call) for path, call in calls.items()}

    def _handler(
        self, api: Api, kind: type[Message], call: Call, pool: futures.ThreadPoolExecutor | None
    ) -> grpc.RpcMethodHandler:
        """Bytes in, bytes out: what arrives is admitted by its size before it is parsed."""

        def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                with api.admission.admit(len(data)):
                    return call(_parse(kind, data), context).SerializeToString()
            except ServingError as error:
                context.abort(error.code, _details(error.message))

        if pool is not None:
            # Status and metadata answer while every Predict thread waits for a batch.
            handle.experimental_thread_pool = pool
        return grpc.unary_unary_rpc_method_handler(handle)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, methods: dict[str, grpc.RpcMethodHandler]) -> None:
        self._methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._methods.get(details.method)


class _Pools:
    """Descriptors for reflection: TensorFlow Serving's private pool, then the default one."""

    def __getattr__(self, name: str) -> Callable:
        def find(*arguments: object) -> object:
            try:
                return getattr(POOL, name)(*arguments)
            except KeyError:
                return getattr(descriptor_pool.Default(), name)(*arguments)

        return find


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
        # A request that waits for a thread stays with its caller but for the first 64 KiB of it;
        # with the probe, gRPC would take in megabytes of each.
        "grpc.http2.bdp_probe": 0,
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
