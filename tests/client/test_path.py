"""How many files an image enters between `stream` and the wire: each must earn its stop."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

import featurewire
from tests.client.misbehaving import Misbehaving, image

LIBRARY = Path(featurewire.__file__).parent
LIMIT = 10


@pytest.mark.parametrize("kind", ["bytes", "paths", "functions"])
def test_an_image_enters_few_files_between_stream_and_the_wire(kind, tmp_path):
    file = tmp_path / "image.jpg"
    file.write_bytes(image(2))
    source = {"bytes": image(2), "paths": file, "functions": lambda: image(2)}[kind]
    entered: set[str] = set()
    sent = threading.Event()

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent == LIBRARY and not sent.is_set():
            entered.add(path.name)

    with Misbehaving() as server, featurewire.Client(server.target, model="tiny") as client:
        client.embed(image(1))
        send = client._connection.started
        client._connection.started = lambda attempt: (send(attempt), sent.set())
        threading.setprofile(note)  # of the threads that read, too
        sys.setprofile(note)
        try:
            assert next(client.stream(iter([source]))).key == 0
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert {"_client.py", "_reading.py", "_stream.py", "_codec.py", "_driver.py"} <= entered
    assert len(entered) <= LIMIT, sorted(entered)
