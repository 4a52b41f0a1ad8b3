"""OpenTelemetry's gRPC instrumentation works as in docs/client.md."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import (
    GrpcAioInstrumentorClient,
    GrpcInstrumentorClient,
    aio_client_interceptors,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from featurewire import AsyncClient, ChannelConfig
from tests.client.misbehaving import Misbehaving, image

PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def exporter():
    """The process's global tracing, because the blocking instrumentor accepts no other."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter):
    exporter.clear()
    return exporter.get_finished_spans


def check(spans, server: Misbehaving) -> None:
    """Check that each Predict is a span and sends its trace to the server."""
    predicts = [span for span in spans() if span.name == PREDICT]
    assert len(predicts) == len(server.call_metadata) == 2
    for span, metadata in zip(predicts, server.call_metadata, strict=True):
        assert f"{span.context.trace_id:032x}" in metadata["traceparent"]


def test_instrumented_before_the_client_is_made(connect, spans):
    instrumentors: list[Any] = [GrpcInstrumentorClient(), GrpcAioInstrumentorClient()]
    for instrumentor in instrumentors:
        instrumentor.instrument()
    try:
        with Misbehaving() as server:
            client = connect(server.target)
            client.embed(image(1))
            assert len(list(client.stream([image(2)]))) == 1
            check(spans, server)
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()


def test_one_async_client_alone(spans):
    async def embed(target: str) -> None:
        channel = ChannelConfig(interceptors=aio_client_interceptors())
        async with AsyncClient(target, model="tiny", channel=channel) as client:
            await client.embed(image(1))
            await client.embed(image(2))

    with Misbehaving() as server:
        asyncio.run(embed(server.target))
        check(spans, server)
