"""A version that loads during service gives the same answers, without taking the others' lock or
threads."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from featurewire_server.engines.engine import EngineConfig
from featurewire_server.engines.libraries import import_openvino
from featurewire_server.engines.load import load_engine
from featurewire_server.flags import parse
from featurewire_server.messages.predict import Run
from featurewire_server.models import warmup
from featurewire_server.models.manager import Manager
from featurewire_server.process import Server
from tests.support.process import free_port

OPENVINO = EngineConfig(engine="openvino")


@pytest.fixture
def version(split_base_path: Path) -> Path:
    return split_base_path / "1"


def features(run, photos: list[Path]) -> np.ndarray:
    images = np.empty(len(photos), object)
    images[:] = [photo.read_bytes() for photo in photos]
    return run("serving_default", {"image_bytes": images}, ["features"])["features"]


@pytest.mark.slow
def test_a_version_loads_while_another_computes(
    version: Path, photos: list[Path], monkeypatch
) -> None:
    alone = load_engine(version, OPENVINO)
    request_type = import_openvino().InferRequest
    expected = features(alone.run, photos)
    computing, loaded = threading.Event(), threading.Event()
    infer = request_type.infer

    def compute_until_loaded(*args, **options):
        computing.set()
        assert loaded.wait(120)
        return infer(*args, **options)

    monkeypatch.setattr(request_type, "infer", compute_until_loaded)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(features, alone.run, photos)
        assert computing.wait(60)
        try:
            beside = load_engine(version, OPENVINO, beside=True)
            assert not answer.done()
        finally:
            loaded.set()
        np.testing.assert_array_equal(answer.result(), expected)
    assert beside.name == "openvino"
    assert beside.signatures == alone.signatures
    np.testing.assert_allclose(features(beside.run, photos), expected, atol=1e-5)


def test_a_version_that_was_there_at_the_start_can_be_collected(
    tmp_path: Path, monkeypatch
) -> None:
    class Version:
        def __init__(self) -> None:
            self.cycle = self

    loaded: list[Version] = []
    monkeypatch.setattr(Manager, "reload", lambda *_: loaded.append(Version()))
    stop = threading.Event()
    stop.set()
    flags = parse([f"--model_base_path={tmp_path}", f"--port={free_port()}"])
    try:
        server = Server(flags, stop)
        gone = weakref.ref(loaded.pop())
        gc.collect()
        assert gone() is None
    finally:
        gc.unfreeze()
    del server


@pytest.mark.slow
def test_it_is_warmed_by_the_first_row_of_each_request(
    version: Path, photos: list[Path], monkeypatch
) -> None:
    monkeypatch.setattr(warmup, "MAX_PAUSE", 0.0)
    engine = load_engine(version, OPENVINO)
    whole = features(engine.run, photos)
    replay = warmup.first_rows(engine)
    first = features(
        lambda name, inputs, outputs: replay(
            Run(signature_name=name, inputs=inputs, outputs=outputs, examples=len(photos))
        ),
        photos,
    )
    np.testing.assert_allclose(first, whole[:1], atol=1e-5)
