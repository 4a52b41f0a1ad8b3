"""The server process: the order in which its parts start, and how it shuts down."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

import grpc

from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_server import __version__, configs
from featurewire_server import flags as flags_module
from featurewire_server._tfs.ssl_config_pb2 import SSLConfig
from featurewire_server.api import Api
from featurewire_server.batching.runner import BatchScheduler
from featurewire_server.common.admission import Admission, default_limit
from featurewire_server.common.errors import ServingError
from featurewire_server.common.files import connections_that_fit, raise_limit
from featurewire_server.common.metrics import Metrics, page_path
from featurewire_server.config_file import ConfigFile
from featurewire_server.engines.libraries import keep_collections_short
from featurewire_server.models.loading import Loader
from featurewire_server.models.manager import Manager, ManagerConfig
from featurewire_server.transport import ports, rest
from featurewire_server.transport.grpc_server import WORK_CALLS, GrpcConfig, GrpcServer

log = logging.getLogger(__name__)

GRACE_SECONDS = 15.0
"""How long requests in flight may take to finish after SIGTERM."""


class StartError(Exception):
    """The server cannot start; the text is one line."""


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP.

    Exit status: 0 after such a signal, 1 if the server could not start, 2 for wrong usage.
    """
    flags = flags_module.parse(argv)
    if flags.version:
        print(f"featurewire-server {__version__}")
        return 0
    _start_logging()
    raise_limit()
    for warning in flags_module.warnings(flags):
        log.warning("%s", warning)
    stop = threading.Event()
    # A signal just before `stop.wait()` blocks would not wake it. The wakeup socket always does.
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # Under `nohup`, SIGHUP is ignored and the server outlives its terminal. Windows lacks SIGHUP.
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: stop.set())
    try:
        server = Server(flags, stop)
    except (StartError, ServingError) as error:
        print(f"featurewire serve: {error}", file=sys.stderr)
        _leave(1)
    while not stop.is_set():
        woken.recv(1)
    server.stop()
    log.info("stopped")
    _leave(0)
    return 0


def _start_logging() -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
    )


def _leave(status: int) -> None:
    """Exit at once, because a thread that is still loading must not delay or crash the exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _with_advice(error: ServingError) -> str:
    if error.code is grpc.StatusCode.FAILED_PRECONDITION:
        return f"{error}; start with --allow_version_labels_for_unavailable_models"
    return str(error)


class Server:
    """All parts of the server. Cheap checks run first, so that most mistakes fail fast.

    The ports are bound at the start, but accept connections only after every model has loaded or
    has failed once. So a server whose port answers is ready, as with TensorFlow Serving.
    """

    def __init__(self, flags: argparse.Namespace, stop: threading.Event) -> None:
        """Load the models and open the ports. Raises StartError or ServingError."""
        self._flags = flags
        self._stopping = stop
        self._grpc: GrpcServer | None = None
        self._rest: rest.HttpServer | None = None
        models = configs.model_server_config(flags)
        monitoring = configs.monitoring_config(flags)
        if monitoring.prometheus_config.enable and not flags.rest_api_port:
            log.warning("--monitoring_config_file has no effect without --rest_api_port")
        tls = configs.ssl_config(flags)
        self._batching = configs.batching_config(flags)
        try:
            ports.check_socket(flags.grpc_socket_path)
            with (
                ports.reserved(flags.port, "port"),
                ports.reserved(flags.rest_api_port, "rest_api_port"),
            ):
                self._metrics = Metrics(page_path(monitoring))
                self._manager = self._make_manager()
                # Before any version is loaded, because unloading a version frees its objects.
                keep_collections_short()
                self._load(models)
        except OSError as error:
            raise StartError(str(error)) from error
        if not stop.is_set():
            self._open(tls)

    def _make_manager(self) -> Manager:
        flags = self._flags
        loader = Loader(
            engine=configs.engine_config(flags),
            batching=self._batching,
            per_model_batching=flags.enable_per_model_batching_parameters,
            scheduler=self._scheduler(),
            warm_up=flags.enable_model_warmup,
            warm_up_iterations=flags.num_request_iterations_for_warmup,
            metrics=self._metrics,
            beside=lambda: self._grpc is not None or self._rest is not None,
        )
        config = ManagerConfig(
            poll_seconds=flags.file_system_poll_wait_seconds,
            max_load_retries=flags.max_num_load_retries,
            load_retry_seconds=max(flags.load_retry_interval_micros, 0) / 1e6,
            load_threads=flags.num_load_threads,
            allow_labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
        )
        return Manager(loader, config, self._metrics)

    def _load(self, models: ModelServerConfig) -> None:
        threading.Thread(target=self._end_loading, name="stop", daemon=True).start()
        try:
            self._manager.reload(models)
        except ServingError as error:
            if self._manager.config is None:  # the config was refused before anything loaded
                raise StartError(_with_advice(error)) from error
            if not self._stopping.is_set():
                log.error("%s", error)
        self._manager.start()
        seconds = self._flags.model_config_file_poll_wait_seconds
        if self._flags.model_config_file and seconds > 0:
            ConfigFile(self._flags.model_config_file, self._manager).watch(seconds, self._stopping)

    def _end_loading(self) -> None:
        self._stopping.wait()
        self._manager.stop()

    def _open(self, tls: SSLConfig | None) -> None:
        flags = self._flags
        admission = Admission(flags.max_inflight_bytes or default_limit(), self._metrics)
        api = Api(
            self._manager,
            admission=admission,
            metrics=self._metrics,
            tensor_content=flags.enable_serialization_as_tensor_content,
            check_method_names=flags.enable_signature_method_name_check,
        )
        addresses = max(bool(flags.port) + bool(flags.grpc_socket_path), 1)
        config = GrpcConfig(
            port=flags.port,
            socket_path=flags.grpc_socket_path,
            tls=tls,
            max_threads=flags.grpc_max_threads or WORK_CALLS,
            max_connections=connections_that_fit(rest=bool(flags.rest_api_port)) // addresses,
            options=tuple(flags_module.channel_arguments(flags.grpc_channel_arguments)),
            health=flags.enable_grpc_healthcheck_service,
            open_inference=flags.enable_oip,
        )
        try:
            self._grpc = GrpcServer(api, config)
            if flags.port:
                log.info("gRPC API on port %d", flags.port)
            if flags.grpc_socket_path:
                log.info("gRPC API on %s", flags.grpc_socket_path)
            if flags.rest_api_port:
                self._rest = rest.start(
                    api,
                    rest.RestConfig(
                        port=flags.rest_api_port,
                        threads=flags.rest_api_num_threads,
                        timeout_seconds=flags.rest_api_timeout_in_ms / 1000,
                        cors=flags.rest_api_enable_cors_support,
                        open_inference=flags.enable_oip,
                        openai_embeddings=flags.enable_openai_embeddings,
                    ),
                )
                log.info("REST API on port %d", self._rest.port)
        except OSError as error:
            raise StartError(str(error)) from error

    def _scheduler(self) -> BatchScheduler:
        """The scheduler of all models.

        Versions without batching run as many requests at a time as TensorFlow Serving has threads
        by default (4 per core). Further requests wait in the schedule, which decides their order.
        """
        direct = self._batching is None or self._flags.enable_per_model_batching_parameters
        return BatchScheduler(
            self._batching.threads if self._batching else 0,
            unbatched=(self._flags.grpc_max_threads or 4 * flags_module.CORES) if direct else 0,
        )

    def stop(self) -> None:
        """Refuse new requests, and give those in flight up to GRACE_SECONDS to finish."""
        log.info("stopping: no new requests; up to %.0f s for those in flight", GRACE_SECONDS)
        self._manager.stop()
        deadline = time.monotonic() + GRACE_SECONDS
        stops = [self._grpc.drain] if self._grpc else []
        stops += [self._rest.stop] if self._rest else []
        stopping = [
            threading.Thread(target=stop, args=(GRACE_SECONDS,), daemon=True) for stop in stops
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join(max(deadline + 1 - time.monotonic(), 0))
