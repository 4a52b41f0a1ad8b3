"""gRPC calls from a separate process.

A synchronous client in the same process would share poll threads with an asyncio server, unlike in
real use. `python -m tests.server.caller SOCKET` makes the calls that a test requests.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import grpc

from tests.support.waiting import wait_until

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # one channel per test, not shared by address
]


class Failed(grpc.RpcError):
    """Error of a call, in a form that can be sent to another process."""

    def code(self) -> grpc.StatusCode:
        return self.args[0]

    def details(self) -> str:
        return self.args[1]


class Call:
    """A running call; `end` ends its request messages."""

    def __init__(self, call: Any, end: Callable[[], None] = lambda: None) -> None:
        self._call = call
        self._end = end
        for name in ("code", "details", "done"):
            setattr(self, name, getattr(call, name))

    def result(self) -> bytes:
        return self._of_the_call(self._call.result)

    def next(self) -> bytes:
        """The next message of a stream."""
        return self._of_the_call(self._call.__next__)

    def trailing_metadata(self) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self._call.trailing_metadata()]

    def cancel(self) -> None:
        self._call.cancel()
        self._end()

    def _of_the_call(self, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except grpc.RpcError as error:
            raise Failed(error.code(), error.details()) from None


class Channel:
    """A channel to `target`; `tls`: the options of `grpc.ssl_channel_credentials`."""

    def __init__(self, target: str, tls: dict[str, bytes] | None = None) -> None:
        if tls is None:
            self._channel = grpc.insecure_channel(target, OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(**tls)
            self._channel = grpc.secure_channel(target, credentials, OPTIONS)

    def start(
        self, path: str, request: bytes, timeout: float | None, metadata: Iterable[tuple[str, str]]
    ) -> Call:
        call = self._channel.unary_unary(path)
        return Call(call.future(request, timeout=timeout, metadata=metadata))

    def open(self, path: str, *messages: bytes, ends: bool = False) -> Call:
        """A stream that sends `messages` and then ends if `ends`, or waits until it is
        cancelled."""
        end = threading.Event()

        def sent() -> Iterator[bytes]:
            yield from messages
            if not ends:
                end.wait(60)

        return Call(self._channel.stream_stream(path)(sent()), end.set)

    def close(self) -> None:
        self._channel.close()


class Caller(BaseManager):
    """Opens channels in the other process."""

    Channel: Callable[..., Channel]


Caller.register("Channel", Channel, method_to_typeid={"start": "Call", "open": "Call"})
Caller.register(
    "Call",
    exposed=("cancel", "code", "details", "done", "next", "result", "trailing_metadata"),
    create_method=False,
)


@functools.cache
def caller() -> Caller:
    """The other process, which ends with this one."""
    address = str(Path(tempfile.mkdtemp(prefix="caller-"), "socket"))
    command = [sys.executable, "-m", "tests.server.caller", address]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    # `communicate` closes its standard input, which ends it, and waits.
    atexit.register(process.communicate)
    found = Caller(address, authkey=b"tests")

    def connected() -> bool:
        assert process.poll() is None, "the process that makes calls has ended"
        try:
            found.connect()
        except (FileNotFoundError, ConnectionRefusedError):  # the process does not listen yet
            return False
        return True

    wait_until(connected)
    return found


if __name__ == "__main__":

    def end_with_the_tests() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=end_with_the_tests, daemon=True).start()
    from tests.server.caller import Caller  # pickled objects need this name

    Caller(sys.argv[1], authkey=b"tests").get_server().serve_forever()
