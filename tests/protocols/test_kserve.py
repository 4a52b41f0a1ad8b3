"""KServe's SDK, unchanged: its clients, and the manifests of deploy/kserve."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

kserve = pytest.importorskip("kserve")
import kubernetes.client  # noqa: E402
from kserve.inference_client import (  # noqa: E402
    InferenceGRPCClient,
    InferenceRESTClient,
    RESTConfig,
)

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kserve"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))


def infer_request(images: list[bytes]) -> Any:
    tensor = kserve.InferInput("image_bytes", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=object), binary_data=True)
    return kserve.InferRequest("small", [tensor])


def vectors_of(answer: Any) -> bytes:
    (output,) = [each for each in answer.outputs if each.name == "features"]
    return output.as_numpy().astype(np.float32).tobytes()


def test_the_rest_client_gets_the_vectors_of_predict(server, images, wanted):
    async def run() -> None:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            url = f"http://{server.rest}"
            assert await client.is_server_live(url)
            assert await client.is_server_ready(url)
            assert await client.is_model_ready(url, "small")
            assert not await client.is_model_ready(url, "other")
            answer = await client.infer(url, infer_request(images), model_name="small")
            assert vectors_of(answer) == wanted
            bad = await client.infer(url, infer_request([b"", images[0]]), model_name="small")
            assert [each.data for each in bad.outputs if each.name == "status"] == [[1, 0]]

    asyncio.run(run())


def test_the_grpc_client_gets_the_vectors_of_predict(server, images, wanted):
    async def run() -> None:
        async with InferenceGRPCClient(server.grpc) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("small")
            answer = await client.infer(infer_request(images))
            assert vectors_of(answer) == wanted

    asyncio.run(run())


# --- manifests


def check(value: Any, kind: str, where: str) -> Any:
    """Build the SDK's object `kind` from `value`; every field must exist and have its type."""
    inner = re.fullmatch(r"[Ll]ist\[(.+)\]|[Dd]ict[\[(]str, (.+)[\])]", kind)
    if inner and inner[1]:
        assert isinstance(value, list), where
        return [check(each, inner[1], f"{where}[{at}]") for at, each in enumerate(value)]
    if inner:
        assert isinstance(value, dict), where
        return {key: check(each, inner[2], f"{where}.{key}") for key, each in value.items()}
    plain = {"str": str, "int": int, "bool": bool, "object": object}
    if kind in plain:
        assert isinstance(value, plain[kind]), f"{where}: {value!r} is not {kind}"
        return value
    sdk = importlib.import_module("kserve.models")
    model = getattr(sdk, kind, None) or getattr(kubernetes.client, kind)
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    assert isinstance(value, dict), where
    assert value.keys() <= names.keys(), f"{where}: unknown {value.keys() - names.keys()}"
    members = {
        names[key]: check(each, model.openapi_types[names[key]], f"{where}.{key}")
        for key, each in value.items()
    }
    return model(**members)  # raises ValueError where a required field is missing


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_has_only_fields_of_kserve(path):
    found = yaml.safe_load(path.read_text())
    version = found["apiVersion"].rpartition("/")[2].capitalize()
    check(found, f"{version}{found['kind']}", path.stem)


def test_an_unknown_field_is_noticed():
    found = yaml.safe_load((FOLDER / "inferenceservice.yaml").read_text())
    found["spec"]["predictor"]["model"]["storageURI"] = "pvc://models"
    with pytest.raises(AssertionError, match="storageURI"):
        check(found, "V1beta1InferenceService", "x")


def runtimes() -> dict[str, Any]:
    found = [yaml.safe_load(path.read_text()) for path in FOLDER.glob("runtime-*.yaml")]
    return {each["metadata"]["name"]: each["spec"] for each in found}


def test_the_service_names_a_runtime_that_has_its_protocol():
    model = yaml.safe_load((FOLDER / "inferenceservice.yaml").read_text())["spec"]["predictor"][
        "model"
    ]
    spec = runtimes()[model["runtime"]]
    assert model["protocolVersion"] in spec["protocolVersions"]
    formats = [(each["name"], each["version"]) for each in spec["supportedModelFormats"]]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats


def test_probes_ask_the_port_that_kserve_routes_to():
    assert set(runtimes()) == {"featurewire", "tensorflow-serving"}
    for spec in runtimes().values():
        (container,) = spec["containers"]
        assert container["name"] == "kserve-container"
        (port,) = container["ports"]
        assert f"--rest_api_port={port['containerPort']}" in container["args"]
        assert "--model_base_path=/mnt/models" in container["args"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] == port["containerPort"]
