"""Proxies in the environment: the calls that use them, and the errors that name them."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest

import featurewire
from featurewire import ChannelConfig, RetryConfig
from featurewire._rpc.channel import proxy_variable
from tests.client.misbehaving import Misbehaving, Sockets, _pump, image, vector_of
from tests.support.process import free_port

NEVER = RetryConfig(max_attempts=1)
VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")
ELSEWHERE = "features.invalid:8500"
"""A host name that only the proxy resolves."""


class Proxy:
    """An HTTP proxy that connects every CONNECT to one port, or refuses it."""

    def __init__(self, port: int | None = None) -> None:
        self.asked: list[str] = []
        self._port = port
        self._sockets = Sockets(self._handle)
        self.url = f"http://{self._sockets.target}"

    def _handle(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := connection.recv(4096)):
            head += data
        if not head.startswith(b"CONNECT "):
            return  # a client of another test, whose server had this port before
        self.asked.append(head.split()[1].decode())
        if self._port is None:
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self._port)) as upstream:
            threading.Thread(target=_pump, args=(connection, upstream), daemon=True).start()
            while data := upstream.recv(65536):
                connection.sendall(data)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_a_proxy_that_refuses_is_named_by_its_variable(connect, monkeypatch, name):
    with Proxy() as proxy:
        monkeypatch.setenv(name, proxy.url)
        with pytest.raises(featurewire.ServerUnavailableError) as caught:
            connect(ELSEWHERE, retry=NEVER, timeout=20).embed(image(1))
        assert proxy.asked[0] == ELSEWHERE
    text = str(caught.value)
    assert f"the proxy in {name} refuses the connection" in text
    assert "add its host to no_proxy" in text


def test_a_proxy_that_is_gone_is_named_by_its_variable(connect, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    client = connect(ELSEWHERE, retry=NEVER, timeout=20)
    for call in (lambda: client.embed(image(1)), lambda: list(client.stream([image(1)]))):
        with pytest.raises(featurewire.ServerUnavailableError, match="the proxy in http_proxy"):
            call()


def test_a_proxy_leads_to_other_machines(connect, monkeypatch):
    with Misbehaving() as server, Proxy(server.port) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        embedding = connect(ELSEWHERE).embed(image(1))
        assert np.array_equal(embedding.vector, vector_of(image(1)))
        assert proxy.asked


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "dns:///localhost", "ipv4:127.0.0.1"])
def test_this_machine_is_reached_without_a_proxy(connect, monkeypatch, host):
    with Misbehaving() as server, Proxy() as proxy:
        for name in ("grpc_proxy", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        embedding = connect(f"{host}:{server.port}").embed(image(1))
        assert np.array_equal(embedding.vector, vector_of(image(1)))
        assert not proxy.asked


def test_a_refused_connection_here_names_no_proxy(connect, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    with pytest.raises(featurewire.ServerUnavailableError) as caught:
        connect(f"localhost:{free_port()}", retry=NEVER).embed(image(1))
    assert "proxy" not in str(caught.value)


def test_an_option_sends_calls_to_this_machine_through_a_proxy(connect, monkeypatch):
    with Misbehaving() as server, Proxy(server.port) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        channel = ChannelConfig(options=[("grpc.enable_http_proxy", 1)])
        connect(server.target, channel=channel).embed(image(1))
        assert proxy.asked == [server.target]


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({"http_proxy": "URL"}, "http_proxy"),
        ({"https_proxy": "URL", "http_proxy": "http://other.invalid:1"}, "https_proxy"),
        ({"grpc_proxy": "URL", "https_proxy": "http://other.invalid:1"}, "grpc_proxy"),
        ({"http_proxy": "URL", "no_proxy": "example.com, features.invalid"}, None),
        ({"http_proxy": "URL", "no_proxy": ".INVALID"}, None),
        ({"http_proxy": "URL", "no_proxy": "other.invalid"}, "http_proxy"),
        ({"http_proxy": "URL", "no_proxy": ""}, "http_proxy"),
        ({"http_proxy": "URL", "no_grpc_proxy": "x", "no_proxy": "invalid"}, "http_proxy"),
        ({"http_proxy": "URL", "no_grpc_proxy": "invalid"}, None),
        ({"https_proxy": "", "http_proxy": "URL"}, None),
        ({"http_proxy": "socks5://127.0.0.1:1"}, None),
        ({}, None),
    ],
)
def test_which_variable_counts_is_what_grpc_does(monkeypatch, environment, variable):
    with Proxy() as proxy:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.replace("URL", proxy.url))
        assert proxy_variable(ELSEWHERE, ChannelConfig()) == variable
        with (
            featurewire.Client(ELSEWHERE, model="tiny", retry=NEVER, timeout=20) as client,
            pytest.raises(featurewire.ServerUnavailableError) as caught,
        ):
            client.status()
        assert bool(proxy.asked) == (variable is not None)
        assert ("the proxy in " in str(caught.value)) == (variable is not None)


@pytest.mark.parametrize(
    ("entry", "exempt"),
    [("10.0.0.0/8", True), ("10.1.2.3", True), ("11.0.0.0/8", False)],
)
def test_no_proxy_takes_networks(monkeypatch, entry, exempt):
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", entry)
    assert (proxy_variable("10.1.2.3:8500", ChannelConfig()) is None) == exempt
