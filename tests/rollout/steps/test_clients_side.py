"""A rollout of a real server as seen by clients of a label, a version and a vector space."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurewire import (
    Client,
    ModelNotFoundError,
    Result,
    StreamConfig,
    VectorSpaceError,
)
from tests.rollout.stack import Stack
from tests.support.models import expected_vector

SMALL = {"images_per_request": 2, "in_flight": 2}


def image(number: int) -> bytes:
    return b"\xff\xd8\xff" + number.to_bytes(4, "big")


class Streaming(threading.Thread):
    """An endless stream of the label `stable`, whose results are checked by their version."""

    def __init__(self, target: str, *, pinned: bool) -> None:
        super().__init__()
        self.target = target
        self.config = StreamConfig(pin_version=pinned, **SMALL)
        self.ended = threading.Event()
        self.versions: list[int] = []
        self.wrong: list[int] = []
        self.error: Exception | None = None

    def run(self) -> None:
        numbers = itertools.takewhile(lambda _: not self.ended.is_set(), itertools.count())
        with Client(self.target, model="tiny", label="stable", stream=self.config) as client:
            try:
                for result in client.stream((number, image(number)) for number in numbers):
                    self._take(result)
            except ModelNotFoundError as error:
                self.error = error

    def _take(self, result: Result[int]) -> None:
        made = result.unwrap()
        expected = expected_vector(image(result.key), version=made.version)
        if result.key != len(self.versions) or not (made.vector == expected).all():
            self.wrong.append(result.key)
        self.versions.append(made.version)

    def wait_for(self, version: int) -> None:
        """Wait for a result of this version."""
        for _ in range(1200):
            if version in self.versions[-50:]:
                return
            self.ended.wait(0.05)
        raise AssertionError(f"no result of version {version}: {self.versions[-50:]}")


@pytest.fixture
def stack(tmp_path: Path, tiny_model: Path) -> Iterator[Stack]:
    made = Stack(tmp_path, tiny_model)
    made.servers = made.servers[:1]
    made.publish(2)
    try:
        made.servers[0].start()
        yield made
    finally:
        if made.servers[0].process is not None:
            made.servers[0].stop()


def test_streams_of_a_label_a_pinned_version_and_a_vector_space(stack: Stack) -> None:
    target = stack.servers[0].target
    with stack.rollout() as rollout:
        rollout.start(2)
        with Client(target, model="tiny", label="stable") as client:
            space = (client.metadata().manifest or {})["vector_space"]
        of_space = Client(target, model="tiny", label="stable", vector_space=space)
        assert of_space.embed(image(0)).version == 1
        following, pinned = Streaming(target, pinned=False), Streaming(target, pinned=True)
        try:
            for stream in (following, pinned):
                stream.start()
                stream.wait_for(1)
            rollout.promote(accept_new_space=True)
            following.wait_for(2)
            with pytest.raises(VectorSpaceError, match=r"version 2 has the vector space"):
                of_space.embed(image(0))
            rollout.retire()
            pinned.join(60)
            assert not pinned.is_alive()
        finally:
            of_space.close()
            for stream in (following, pinned):
                stream.ended.set()
                if stream.ident is not None:
                    stream.join(60)
    assert following.error is None
    assert following.wrong == pinned.wrong == []
    assert set(following.versions) == {1, 2}
    assert set(pinned.versions) == {1}
    assert isinstance(pinned.error, ModelNotFoundError)
    assert "Specific(tiny, 1)" in str(pinned.error)
