"""The server's front with an engine that answers at once, or a bare `grpc.aio` handler.

`python -m bench._front_server featurewire|bare` prints its port and serves until its standard input
ends. A line on standard input closes the engine, and all further calls wait.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np

from bench._crowd import PREDICT
from bench._instant_server import reply_of
from featurewire._tfs import types_pb2
from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_server.api import Api
from featurewire_server.batching.runner import BatchScheduler, Runner
from featurewire_server.common.admission import Admission, default_limit
from featurewire_server.common.loop import run
from featurewire_server.engines.engine import Patience, endless
from featurewire_server.models.manager import Manager, ManagerConfig
from featurewire_server.transport.grpc_server import GrpcConfig, GrpcServer
from tests.support.process import free_port

MODEL = "instant"
DIMENSION = 1536
THREADS = 16


class InstantEngine:
    """Returns the same vector for every image at once, and waits while it is closed."""

    name, precision, side_by_side, pads = "instant", "float32", True, False

    def __init__(self) -> None:
        signature = SignatureDef()
        images, features = signature.inputs["image_bytes"], signature.outputs["features"]
        images.name, images.dtype = "images:0", types_pb2.DT_STRING
        features.name, features.dtype = "features:0", types_pb2.DT_FLOAT
        images.tensor_shape.dim.add(size=-1)
        for size in (-1, DIMENSION):
            features.tensor_shape.dim.add(size=size)
        self.signatures: Mapping[str, SignatureDef] = {"serving_default": signature}
        self.open = threading.Event()
        self.open.set()
        self._row = np.random.default_rng(1).random((1, DIMENSION), np.float32)

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience = endless,
    ) -> dict[str, np.ndarray]:
        self.open.wait()
        return {"features": np.repeat(self._row, len(inputs["image_bytes"]), axis=0)}

    def close(self) -> None: ...


def featurewire_front(port: int) -> InstantEngine:
    """Serve an engine in the same way as `featurewire serve`."""
    engine = InstantEngine()
    scheduler = BatchScheduler(0, unbatched=THREADS)
    manager = Manager(lambda *_: Runner(MODEL, engine, None, scheduler), ManagerConfig())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "1").mkdir()
        models = ModelServerConfig()
        models.model_config_list.config.add(
            name=MODEL, base_path=folder, model_platform="tensorflow"
        )
        manager.reload(models)
    GrpcServer(
        Api(manager, admission=Admission(default_limit())),
        GrpcConfig(port=port, host="127.0.0.1", max_threads=1024),
    )
    return engine


async def bare(port: int) -> None:
    """Serve a handler that returns fixed bytes, to measure the cost of `grpc.aio` itself."""
    reply = reply_of(1, DIMENSION)

    async def predict(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return reply

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    service, name = PREDICT.strip("/").split("/")
    method = grpc.unary_unary_rpc_method_handler(predict)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: method})])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    KEPT.append(server)


KEPT: list[grpc.aio.Server] = []
"""Keeps the server alive: grpc stops a server without references."""

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("front", choices=("featurewire", "bare"))
    port = free_port()
    if parser.parse_args().front == "bare":
        run(bare(port))
    else:
        engine = featurewire_front(port)
    print(port, flush=True)
    for _ in sys.stdin:
        engine.open.clear()
        print("closed", flush=True)
