"""How many files an image enters between `stream` and the wire: each must earn its stop."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import featurewire
from tests.client.misbehaving import Misbehaving, image

LIBRARY = Path(featurewire.__file__).parent
LIMIT = 10


def test_an_image_enters_few_files_between_stream_and_the_wire():
    entered: set[str] = set()

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent == LIBRARY and not sent.is_set():
            entered.add(path.name)

    sent = threading.Event()

    with Misbehaving() as server, featurewire.Client(server.target, model="tiny") as client:
        client.embed(image(1))
        send = client._connection.started
        client._connection.started = lambda attempt: (sent.set(), send(attempt))
        results = client.stream([image(2)])
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            assert next(results).key == 0
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert {"_client.py", "_stream.py", "_codec.py", "_driver.py"} <= entered
    assert len(entered) <= LIMIT, sorted(entered)
