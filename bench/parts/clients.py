"""The Python client compared with other clients of the same server.

Sixteen threads send one image each to the embedded server (OpenVINO, bfloat16) and convert the
reply into a float32 array. `stream` is one thread with the defaults of `client.stream`.
`tensorflow-serving-api` is TensorFlow Serving's own Python package. The last two clients decode and
resize the image themselves and send the network's input, 299x299x3 floats. Bytes are those of one
image's request and reply, without HTTP headers.
"""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections.abc import Callable

import numpy as np

from bench import models
from bench._crowd import rest_body
from bench._published import serving
from bench._serving_load import MODEL, jpegs, rest_port, server_pid
from bench.loads import Row, streaming, threads
from bench.results import Figure
from bench.sharing import shared
from featurewire import Client

CALLERS = 16
SIDE = 299
OURS = "featurewire"
STREAM = "featurewire, stream"
TABLE = "Sixteen callers"
Call = Callable[[int], np.ndarray]


class Bytes:
    """Bytes of one image's request and reply in the latest call."""

    def __init__(self) -> None:
        self.there = self.back = 0

    def columns(self) -> dict[str, float | str]:
        return {"request KB": self.there / 1000, "reply KB": self.back / 1000}


def measure(quick: bool) -> list[Figure]:
    rounds, seconds = (1, 1.0) if quick else (3, 6.0)
    contents = jpegs()
    flags = ("--engine=openvino", "--engine_precision=bfloat16")
    with (
        shared(serving, models.stand_in().parent, MODEL, *flags) as target,
        Client(target, model=MODEL) as client,
    ):
        client.wait_until_ready(120)
        ways, sizes = _ways(client, target, rest_port(target), contents)
        expected = ways[OURS](0)
        for call in ways.values():
            if np.dot(vector := call(0), expected) < 0.99 * np.linalg.norm(vector) * np.linalg.norm(
                expected
            ):
                raise RuntimeError("a client got another vector")
        pid = server_pid(target)
        rows = [Row(name, CALLERS, threads(call), pid) for name, call in ways.items()]
        rows.insert(1, Row(STREAM, CALLERS, streaming(client, contents), pid))
        for row in rows:
            row.warm_up(seconds / 3)
        for _ in range(rounds):
            for row in rows:
                row.run(seconds)
    return [
        row.figure(
            TABLE,
            {"of featurewire": OURS},
            **(sizes[row.name].columns() if row.name in sizes else {}),
        )
        for row in rows
    ]


def _ways(
    client: Client, target: str, port: int, contents: list[bytes]
) -> tuple[dict[str, Call], dict[str, Bytes]]:
    """Functions from an image's number to its vector, and their request and reply sizes."""
    import cv2
    import grpc
    import tensorflow as tf
    from PIL import Image
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    options = [("grpc.use_local_subchannel_pool", 1)]
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(target, options))
    local = threading.local()
    names = (OURS, "tensorflow-serving-api", "REST, base64", "Pillow, tensors", "OpenCV, tensors")
    sizes = {name: Bytes() for name in names}

    def image_of(number: int) -> bytes:
        return contents[number % len(contents)]

    def predict(name: str, signature: str, key: str, value: object, output: str) -> np.ndarray:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = MODEL
        request.model_spec.signature_name = signature
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        reply = stub.Predict(request, timeout=60)
        if not sizes[name].there:
            sizes[name].there, sizes[name].back = request.ByteSize(), reply.ByteSize()
        vector: np.ndarray = tf.make_ndarray(reply.outputs[output])[0]
        return vector

    def ours(number: int) -> np.ndarray:
        return np.asarray(client.embed(image_of(number)))

    def api(number: int) -> np.ndarray:
        value = [image_of(number)]
        return predict(names[1], "serving_default", "image_bytes", value, "features")

    def rest(number: int) -> np.ndarray:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port)
        body = rest_body(image_of(number))
        local.connection.request("POST", f"/v1/models/{MODEL}:predict", body)
        reply = local.connection.getresponse().read()
        sizes[names[2]].there, sizes[names[2]].back = len(body), len(reply)
        return np.array(json.loads(reply)["predictions"][0]["features"], np.float32)

    def pillow(number: int) -> np.ndarray:
        picture = Image.open(io.BytesIO(image_of(number))).convert("RGB")
        pixels = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
        return predict(names[3], "image_feature_vector", "images", pixels[None] / 255, "default")

    def opencv(number: int) -> np.ndarray:
        decoded = cv2.imdecode(np.frombuffer(image_of(number), np.uint8), cv2.IMREAD_COLOR_RGB)
        pixels = cv2.resize(decoded, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        return predict(names[4], "image_feature_vector", "images", pixels[None] / 255, "default")

    # The client does not report its sizes, so send the same messages without it.
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([contents[0]]))
    request.output_filter.extend(["features", "status"])
    sizes[OURS].there = request.ByteSize()
    sizes[OURS].back = stub.Predict(request, timeout=60).ByteSize()
    return dict(zip(names, (ours, api, rest, pillow, opencv), strict=True)), sizes
