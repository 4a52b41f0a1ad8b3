"""The embedded server compared with LitServe, BentoML and plain TensorFlow.

All servers run the same OpenVINO network in float32, compiled for the same batches, with the same
number of threads. LitServe and BentoML use batches of up to 16 and one worker with all cores, as
their guides to batching recommend; ours uses batches of up to 32. Plain TensorFlow is the hub
module's graph after a plain decode, in process, as TensorFlow Serving would execute it.

Every server decodes every image. The peers use OpenCV, which shrinks by averaging areas, and one
bad image fails their whole batch. Ours uses the published graph, whose antialiased resize gives the
module's own vectors; `decode` compares the costs.

Only one server runs at a time, and the others are stopped, because an idle LitServe takes 5 % of a
core. Bytes are those of one image's request and reply. `others` includes the peers' workers, which
outlive their servers. A quick run is in bfloat16 and omits plain TensorFlow, so that it shares the
server and the models of other parts.
"""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from functools import partial
from pathlib import Path

from bench import models
from bench._crowd import Grpc, Http, predict_request
from bench._openvino_network import read_network
from bench._published import free_port, running, serving, standing_still
from bench._serving_load import MODEL, alone_in, jpegs, server_pid
from bench.loads import Row, cheap
from bench.results import Figure
from bench.servers.answers import first_answer
from bench.sharing import shared
from featurewire import Client

PLAIN = "plain TensorFlow in process, full batches"
CEILING = "OpenVINO in process, full batches"
OURS = "Featurewire over gRPC"
BOUNDARY = "8f3a61c4e0"


def measure(quick: bool) -> list[Figure]:
    levels = (32,) if quick else (1, 4, 32)
    rounds, seconds = (1, 2.0) if quick else (5, 5.0)
    precision = "bfloat16" if quick else "float32"
    contents = jpegs()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines = {CEILING: (models.stand_in(), "openvino", precision)}
        if not quick:
            engines = {PLAIN: (models.plain(), "tensorflow", "float32")} | engines
        alone = {
            name: stack.enter_context(shared(alone_in(quick), *engine))
            for name, engine in engines.items()
        }
        rows, sizes = [], {}
        for name, (row, size) in _servers(stack, scratch, contents, precision).items():
            sizes[name] = size
            rows += [Row(name, level, row.loop, row.pid) for level in levels]
        for each in rows:
            each.warm_up(seconds / 4)
        rates: dict[str, list[float]] = {name: [] for name in alone}
        servers = {each.pid for each in rows}
        for _ in range(rounds):
            with standing_still(servers):
                for name, engine in alone.items():
                    rates[name].append(engine.rate(seconds)[1])
            for each in rows:
                with standing_still(servers - {each.pid}):
                    each.run(seconds)
    figures = []
    for level in levels:
        table = f"{level} in flight"
        figures += [
            Figure(table=table, name=name, unit="images/s", values=values)
            for name, values in rates.items()
        ]
        peers = {f"of {name.split(' in ')[0]}": name for name in rates} | {"of Featurewire": OURS}
        figures += [
            row.figure(table, peers, **sizes[row.name]) for row in rows if row.in_flight == level
        ]
    return figures


def _servers(
    stack: contextlib.ExitStack, scratch: Path, contents: list[bytes], precision: str
) -> dict[str, tuple[Row, dict[str, float | str]]]:
    """Each server with the loop of its callers, and the sizes of an image's request and reply."""
    import openvino as ov

    network = scratch / "network.xml"
    ov.save_model(read_network(models.stand_in()), network, compress_to_fp16=False)
    environment = {
        "FEATUREWIRE_BENCH_NETWORK": str(network),
        "FEATUREWIRE_BENCH_PRECISION": precision,
        "BENTOML_DO_NOT_TRACK": "true",
    }
    found = {}
    flags = ("--engine=openvino", f"--engine_precision={precision}")
    target = stack.enter_context(shared(serving, models.stand_in().parent, MODEL, *flags))
    with Client(target, model=MODEL) as client:
        client.wait_until_ready(120)
    requests = [predict_request(MODEL, image) for image in contents]
    reply = Grpc.answer(target, requests[0])
    row = Row(OURS, 1, cheap(lambda: Grpc(target, requests)), server_pid(target))
    found[OURS] = (row, _sizes(requests, reply))
    for name, arguments, path, bodies, kind in (
        (
            "LitServe",
            ["-m", "bench.servers.litserve_server"],
            "/predict",
            [_json(image) for image in contents],
            "application/json",
        ),
        (
            "BentoML",
            ["-m", "bentoml", "serve", "bench.servers.bentoml_service:Images"]
            + ["--host", "127.0.0.1", "--port"],
            "/embed",
            [_form(image) for image in contents],
            f"multipart/form-data; boundary={BOUNDARY}",
        ),
    ):
        port = free_port()
        server = stack.enter_context(running([*arguments, str(port)], port, environment))
        reply = first_answer(port, path, bodies[0], kind)
        loop = cheap(partial(Http, port, path, bodies, kind))
        found[name] = (Row(name, 1, loop, server.pid), _sizes(bodies, reply))
    return found


def _sizes(requests: list[bytes], reply: bytes) -> dict[str, float | str]:
    there = sum(map(len, requests)) / len(requests)
    return {"request KB": there / 1000, "reply KB": len(reply) / 1000}


def _json(image: bytes) -> bytes:
    return json.dumps({"image_bytes": base64.b64encode(image).decode()}).encode()


def _form(image: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n'
    start = (head + "Content-Type: image/jpeg\r\n\r\n").encode()
    return start + image + f"\r\n--{BOUNDARY}--\r\n".encode()
