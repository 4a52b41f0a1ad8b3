"""Parse a server's replies about a model: versions, signatures and manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from featurewire import manifest
from featurewire._errors import ConfigError, ResponseError
from featurewire._tfs import (
    error_codes_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    types_pb2,
)
from featurewire._wire.predict import Names
from featurewire._wire.replies import enum_name, parsed

GET_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
GET_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"


@dataclass(frozen=True, kw_only=True)
class VersionStatus:
    """One version of a model on one server."""

    version: int
    state: str
    """`START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END` (unloaded, or failed to load)."""
    error_code: str = "OK"
    """The status code's name; not `OK` when loading failed."""
    error_message: str = ""

    @property
    def available(self) -> bool:
        return self.state == "AVAILABLE"

    @property
    def failed(self) -> bool:
        """Whether the version failed to load."""
        return self.error_code != "OK"


def describe(versions: Iterable[VersionStatus]) -> str:
    """The states as text: `version 2 is LOADING, version 1 is END (NOT_FOUND: no such file)`."""
    return ", ".join(
        f"version {each.version} is {each.state}"
        + (f" ({each.error_code}: {each.error_message})" if each.failed else "")
        for each in versions
    )


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """The versions that a server lists for a model, the newest first."""

    model: str
    versions: tuple[VersionStatus, ...]

    @property
    def available(self) -> bool:
        """Whether at least one version answers requests."""
        return any(version.available for version in self.versions)


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A named tensor of a signature."""

    dtype: str
    """Its TensorFlow name, such as `DT_FLOAT`."""
    shape: tuple[int, ...] | None
    """-1 stands for an unknown size, None for an unknown rank."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    method_name: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """The signatures and the manifest of a served version."""

    model: str
    version: int
    signatures: dict[str, Signature]
    manifest: dict[str, Any] | None
    """The exporter's manifest; None if the version has none."""


def status_request(spec: model_pb2.ModelSpec) -> bytes:
    return get_model_status_pb2.GetModelStatusRequest(model_spec=spec).SerializeToString()


def parse_status(reply: bytes, *, model: str) -> ModelStatus:
    message = parsed(reply, get_model_status_pb2.GetModelStatusResponse)
    versions = [
        VersionStatus(
            version=each.version,
            state=enum_name(get_model_status_pb2.ModelVersionStatus.State, each.state),
            error_code=enum_name(error_codes_pb2.Code, each.status.error_code),
            error_message=each.status.error_message,
        )
        for each in message.model_version_status
    ]
    versions.sort(key=lambda each: each.version, reverse=True)
    return ModelStatus(model=model, versions=tuple(versions))


def metadata_request(spec: model_pb2.ModelSpec) -> bytes:
    return get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec, metadata_field=["signature_def"]
    ).SerializeToString()


def parse_metadata(reply: bytes) -> ModelMetadata:
    """Parse the signatures. The manifest takes another call."""
    message = parsed(reply, get_model_metadata_pb2.GetModelMetadataResponse)
    signatures = parsed(
        message.metadata["signature_def"].value, get_model_metadata_pb2.SignatureDefMap
    )
    return ModelMetadata(
        model=message.model_spec.name,
        version=message.model_spec.version.value,
        signatures={
            name: Signature(
                inputs={key: _spec(info) for key, info in sorted(definition.inputs.items())},
                outputs={key: _spec(info) for key, info in sorted(definition.outputs.items())},
                method_name=definition.method_name,
            )
            for name, definition in sorted(signatures.signature_def.items())
        },
        manifest=None,
    )


def parse_manifest(values: list[bytes]) -> dict[str, Any]:
    if not values:
        raise ResponseError("the reply has no manifest")
    try:
        return manifest.parse(values[0])
    except manifest.ManifestError as error:
        raise ResponseError(f"the manifest {error}") from error


def choose_names(
    metadata: ModelMetadata, *, signature: str, input: str | None, output: str | None
) -> Names:
    """The tensors to use: the named ones, or the only ones that fit. Raises `ConfigError`."""
    found = metadata.signatures.get(signature)
    if found is None:
        raise ConfigError(
            f"version {metadata.version} of {metadata.model!r} has no signature {signature!r}, "
            f"only {sorted(metadata.signatures)}",
            advice="which signature",
        )
    strings = [name for name, spec in found.inputs.items() if spec.dtype == "DT_STRING"]
    floats = [
        name
        for name, spec in found.outputs.items()
        if spec.dtype == "DT_FLOAT" and (spec.shape is None or len(spec.shape) == 2)
    ]
    status = found.outputs.get("status")
    chosen = _choice("output", output, floats, found.outputs, "features", signature)
    shape = found.outputs[chosen].shape
    return Names(
        signature=signature,
        input=_choice("input", input, strings, found.inputs, "image_bytes", signature),
        output=chosen,
        status="status" if status is not None and status.dtype == "DT_INT32" else None,
        dimension=shape[1] if shape is not None and shape[1] > 0 else None,
        version=metadata.version,
    )


def _choice(
    kind: str,
    wanted: str | None,
    fitting: list[str],
    present: dict[str, TensorSpec],
    usual: str,
    signature: str,
) -> str:
    what = "encoded images (DT_STRING)" if kind == "input" else "vectors (DT_FLOAT [N, D])"
    listed = ", ".join(f"{name}: {spec.dtype} {spec.shape}" for name, spec in present.items())
    if wanted is not None:
        if wanted in fitting:
            return wanted
        problem = "does not take" if kind == "input" else "does not give"
        problem = (
            f"{kind} {wanted!r} {problem} {what}"
            if wanted in present
            else (f"no {kind} {wanted!r}")
        )
        raise ConfigError(f"signature {signature!r}: {problem}; it has {listed}")
    if usual in fitting:
        return usual
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ConfigError(
            f"signature {signature!r}: several {kind}s fit; it has {listed}",
            advice=f"which {kind}",
        )
    raise ConfigError(f"signature {signature!r}: no {kind} of {what}; it has {listed}")


def _spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    return TensorSpec(
        dtype=enum_name(types_pb2.DataType, info.dtype),
        shape=None if shape.unknown_rank else tuple(dim.size for dim in shape.dim),
    )
