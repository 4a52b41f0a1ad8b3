"""Queries about the model: names of tensors, status, manifest, readiness.

Each query is a `Flow`: it yields the steps to run and returns the answer.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from featurewire._config import Settings
from featurewire._errors import (
    ConfigError,
    DeadlineExceededError,
    FeaturewireError,
    InvalidRequestError,
    ModelNotFoundError,
    ServerError,
    ServerUnavailableError,
    is_transient,
)
from featurewire._flow import Flow, Send, Sleep
from featurewire._rpc.call import Decide
from featurewire._rpc.connection import Connection
from featurewire._tfs import model_pb2
from featurewire._wire.predict import PREDICT, Codec, Names, model_spec
from featurewire._wire.replies import read_strings
from featurewire._wire.status import (
    GET_METADATA,
    GET_STATUS,
    ModelMetadata,
    ModelStatus,
    VersionStatus,
    choose_names,
    describe,
    metadata_request,
    parse_manifest,
    parse_metadata,
    parse_status,
    status_request,
)

POLL_SECONDS = 0.25
"""Seconds between two polls of a model that is loading."""


class Queries:
    """Queries about one model, or about its pinned version or label."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._origin = f"{settings.target}, model {settings.model!r}"
        version = settings.version
        self._late = "no version became" if version is None else f"version {version} did not become"

    def spec(self, signature: str = "", *, pinned: int | None = None) -> model_pb2.ModelSpec:
        """The `ModelSpec` for requests. `pinned` replaces the client's version or label."""
        settings = self._settings
        version = pinned or settings.version
        return model_spec(
            settings.model, version=version, label=settings.label, signature=signature
        )

    def names(self, deadline: float) -> Flow[Names]:
        """The signature's tensors."""
        settings = self._settings
        wanted = {"input": settings.input, "output": settings.output}
        try:
            metadata = yield from self.signatures(deadline)
        except (ServerError, InvalidRequestError) as error:
            if error.code not in ("UNIMPLEMENTED", "INVALID_ARGUMENT"):
                raise
            # The server does not implement GetModelMetadata. Assume the names that exported models
            # have, and ask for all outputs.
            return Names(
                signature=settings.signature,
                input=settings.input or "image_bytes",
                output=settings.output or "features",
                status="status",
                filtered=False,
            )
        return choose_names(metadata, signature=settings.signature, **wanted)

    def current(self, deadline: float) -> Flow[int]:
        """The version that answers now: the label's, else the newest AVAILABLE one."""
        try:
            metadata = yield from self.signatures(deadline)
            if metadata.version:
                return metadata.version
        except ServerError as error:
            if error.code != "UNIMPLEMENTED" or self._settings.label is not None:
                raise
        status = yield from self.status(deadline)
        for version in status.versions:
            if version.available:
                return version.version
        raise ModelNotFoundError(f"{self._origin}: no version is AVAILABLE", advice="wait")

    def manifest(
        self, version: int, deadline: float, *, once: bool = False
    ) -> Flow[dict[str, Any]]:
        """A version's manifest. Raises an error if the version does not have one."""
        names = Names(signature="manifest", input="request", output="manifest", status=None)
        request = Codec(self.spec("manifest", pinned=version), names).build([b""])
        reply = yield from self.unary(PREDICT, request, deadline, once=once)
        return parse_manifest(read_strings(reply, "manifest"))

    def status(self, deadline: float, *, once: bool = False) -> Flow[ModelStatus]:
        request = status_request(self.spec())
        reply = yield from self.unary(GET_STATUS, request, deadline, once=once)
        return parse_status(reply, model=self._settings.model)

    def signatures(self, deadline: float, *, once: bool = False) -> Flow[ModelMetadata]:
        """The metadata without the manifest, which takes another call."""
        request = metadata_request(self.spec())
        reply = yield from self.unary(GET_METADATA, request, deadline, once=once)
        metadata = parse_metadata(reply)
        return metadata if metadata.model else replace(metadata, model=self._settings.model)

    def metadata(self, deadline: float, *, once: bool = False) -> Flow[ModelMetadata]:
        metadata = yield from self.signatures(deadline, once=once)
        signature = metadata.signatures.get("manifest")
        if signature is None or {"request"} != set(signature.inputs):
            return metadata
        manifest = yield from self.manifest(metadata.version, deadline, once=once)
        return replace(metadata, manifest=manifest)

    def wait_until_ready(self, deadline: float) -> Flow[ModelStatus]:
        """Poll until a version (the pinned one, if any) is AVAILABLE."""
        began = time.monotonic()
        seen = ""
        advice = ""
        cause: FeaturewireError | None = None
        while True:
            now = time.monotonic()
            if now >= deadline:
                break
            try:
                status = yield from self._poll(deadline)
            except ModelNotFoundError as error:
                seen, advice, cause = error._problem, "name", error
                if error.code == "NOT_FOUND" and self._settings.version is None:
                    seen = "the server lists no version of a model of that name"
            except DeadlineExceededError as error:
                # The deadline cuts the last query short, so the result before it says more.
                if not seen:
                    seen, advice, cause = error._problem, error._advice, error
            except FeaturewireError as error:
                if not is_transient(error):
                    raise
                seen, advice, cause = error._problem, error._advice, error
            else:
                if status.available:
                    return status
                seen = describe(status.versions) or "the server lists no version"
                advice, cause = "", None
                if status.versions and all(map(_gave_up, status.versions)):
                    raise ServerError(f"{self._origin} could not be loaded: {seen}")
            yield Sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        if isinstance(cause, ServerUnavailableError):
            raise cause
        raise DeadlineExceededError(
            f"{self._origin}: {self._late} AVAILABLE in {deadline - began:.3g} s; "
            f"{seen or 'the time was too short for a query'}",
            advice=advice,
        ) from cause

    def is_ready(self, deadline: float) -> Flow[bool]:
        """Whether a version (the pinned one, if any) is AVAILABLE on any server now."""
        # A server that fails rests, so the next query goes to another one.
        for _ in self._connection.servers:
            try:
                status = yield from self._poll(deadline)
            except ConfigError:
                raise
            except FeaturewireError:
                continue
            if status.available:
                return True
        return False

    def _poll(self, deadline: float) -> Flow[ModelStatus]:
        """Ask for the status once. Raises an error for an unknown label.

        It does not retry, because its callers poll anyway and other calls need the retry budget.
        """
        status = yield from self.status(deadline, once=True)
        if status.available and self._settings.label is not None:
            # TensorFlow Serving ignores labels in GetModelStatus, but not in GetModelMetadata.
            yield from self.signatures(deadline, once=True)
        return status

    def unary(
        self, method: str, request: bytes, deadline: float, *, once: bool = False
    ) -> Flow[bytes]:
        """Any unary call, by its full name `/package.Service/Method`. `once`: do not retry."""
        decide: Decide = (lambda *_: None) if once else self._connection.policy
        call = self._connection.call(method, request, decide=decide, deadline=deadline)
        yield Send(call)
        if call.error is not None:
            raise call.error
        assert call.reply is not None
        return call.reply


def _gave_up(version: VersionStatus) -> bool:
    return version.failed and version.state == "END"
