"""TensorFlow Serving's REST API, with the metrics page on the same port.

The API is plain HTTP, as in TensorFlow Serving, because `--ssl_config_file` applies to gRPC only.
"""

from featurewire_server.transport.rest.server import HttpServer, RestConfig, start

__all__ = ["HttpServer", "RestConfig", "start"]
