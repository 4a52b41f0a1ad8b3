"""TensorFlow Serving's REST API, and the metrics page beside it on the same port.

Plain HTTP, as TensorFlow Serving's: `--ssl_config_file` secures gRPC only.
"""

from featurewire_server.transport.rest.server import HttpServer, RestConfig, start

__all__ = ["HttpServer", "RestConfig", "start"]
