"""TensorFlow Serving's REST API, and the metrics page beside it on the same port.

Plain HTTP, as TensorFlow Serving's: `--ssl_config_file` secures gRPC only.
"""

from __future__ import annotations

from typing import Protocol

from ..api import Api
from ..metrics import PrometheusMetrics
from ..telemetry import Metrics
from .handler import Handler
from .server import MAX_CONNECTIONS, HttpServer, listen

#: The largest body. Images in base64 take a third more than their bytes.
MAX_BODY_BYTES = 128 << 20


class RestFlags(Protocol):
    """The flags that REST reads, under tensorflow_model_server's names."""

    rest_api_port: int
    rest_api_num_threads: int
    rest_api_timeout_in_ms: int
    rest_api_enable_cors_support: bool


def start(api: Api, flags: RestFlags, metrics: Metrics) -> HttpServer:
    """Serve `api` on `flags.rest_api_port`; the page of `metrics` too, if it has one.

    Raises OSError, naming the port, when it is taken.
    """
    handler = Handler(
        api,
        cors=flags.rest_api_enable_cors_support,
        metrics=metrics if isinstance(metrics, PrometheusMetrics) else None,
        max_body_bytes=MAX_BODY_BYTES,
    )
    return HttpServer(
        listen(flags.rest_api_port),
        handler,
        refuse=handler.refuse,
        admission=api.admission,
        threads=flags.rest_api_num_threads or MAX_CONNECTIONS,
        timeout=flags.rest_api_timeout_in_ms / 1000,
        max_body_bytes=MAX_BODY_BYTES,
    )
