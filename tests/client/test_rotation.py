"""Certificates and authorities that change during the life of a client."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest
import trustme

import featurewire
from featurewire import RetryConfig, TLSConfig
from featurewire._rpc import channel as channel_module
from tests.client.misbehaving import Misbehaving, image, reply_to
from tests.client.test_tls import credentials, works
from tests.support.waiting import wait_until

QUICK = RetryConfig(initial_backoff=0.01, max_backoff=0.05)


class Rotating:
    """Files with an authority and a client's certificate, like a mounted secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tls = TLSConfig(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")
        self.rotate()

    def rotate(self, *names: str) -> None:
        """Issue a new authority, certificate and key; write these files, or all of them."""
        self.authority = trustme.CA()
        mine = self.authority.issue_cert("client.example")
        self.issued = {
            "ca": self.authority.cert_pem.bytes(),
            "cert": mine.cert_chain_pems[0].bytes(),
            "key": mine.private_key_pem.bytes(),
        }
        self.write(*(names or self.issued))

    def write(self, *names: str) -> None:
        """Replace the files by a rename, like Kubernetes."""
        for name in names:
            new = self.folder / f"{name}.new"
            new.write_bytes(self.issued[name])
            os.replace(new, self.folder / f"{name}.pem")

    def server(self, port: int = 0, **kwargs) -> Misbehaving:
        """Make a server that presents and requires certificates of the authority."""
        shown = self.authority.issue_cert("localhost")
        theirs = credentials(shown, clients=self.authority)
        return Misbehaving(credentials=theirs, port=port, **kwargs)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(channel_module, "RELOAD_SECONDS", 0.0)
    return Rotating(tmp_path)


def test_a_rotated_authority_and_certificate_are_used(connect, files):
    with files.server() as server:
        client = connect(server.target, tls=files.tls, retry=QUICK)
        assert works(client)
    for _ in range(3):
        files.rotate()
        with files.server(server.port):
            assert works(client)
            assert len(list(client.stream([image(1), image(2)]))) == 2


def test_a_rotation_before_the_first_call_is_seen(connect, files):
    with files.server() as server:
        client = connect(server.target, tls=files.tls, retry=QUICK)
    files.rotate()
    with files.server(server.port):
        assert works(client)


def test_a_rotation_leaves_calls_in_flight_alone(connect, files):
    gate, reached = threading.Event(), threading.Event()

    def predict(images, _context):
        if image(7) in images:
            reached.set()
            gate.wait(30)
        return reply_to(images)

    with files.server(predict=predict) as server:
        client = connect(server.target, tls=files.tls, retry=RetryConfig(max_attempts=1))
        assert works(client)
        answers = []
        held = threading.Thread(target=lambda: answers.append(client.embed(image(7)).version))
        held.start()
        assert reached.wait(20)
        # The same authority with another certificate, so the server accepts both.
        fresh = files.authority.issue_cert("client.example")
        files.issued["cert"] = fresh.cert_chain_pems[0].bytes()
        files.issued["key"] = fresh.private_key_pem.bytes()
        files.write("cert", "key")
        assert works(client)
        assert not answers
        gate.set()
        held.join(20)
        assert answers == [1]


def test_files_half_way_through_a_rotation_change_nothing(connect, files, caplog):
    caplog.set_level(logging.WARNING, "featurewire")
    with files.server() as server:
        client = connect(server.target, tls=files.tls, retry=QUICK)
        assert works(client)
        files.rotate("cert")  # its key has not been replaced yet
        assert works(client)
        assert "does not belong to the certificate" in caplog.text
        (files.folder / "ca.pem").write_bytes(b"-----BEGIN CERT")
        assert works(client)
        (files.folder / "ca.pem").unlink()
        assert works(client)
    files.write("ca", "key")
    with files.server(server.port):
        assert works(client)


def test_files_written_again_unchanged_keep_the_connection(connect, files, caplog):
    caplog.set_level(logging.INFO, "featurewire")
    with files.server() as server:
        client = connect(server.target, tls=files.tls)
        assert works(client)
        files.write("ca", "cert", "key")
        assert works(client)
    assert "have changed" not in caplog.text


def test_connections_of_old_certificates_are_closed_later(connect, files, monkeypatch):
    closed = []
    real = channel_module.open_channel

    def watched(*args):
        channel = real(*args)
        close = channel.close

        def note(*args):
            closed.append(channel)
            return close(*args)

        channel.close = note
        return channel

    monkeypatch.setattr(channel_module, "open_channel", watched)
    with files.server() as server:
        client = connect(server.target, tls=files.tls, retry=QUICK)
        assert works(client)
    files.rotate()
    with files.server(server.port):
        assert works(client)
    assert not closed
    monkeypatch.setattr(channel_module, "RETIRED_SECONDS", 0.0)
    files.rotate()
    with files.server(server.port):
        assert works(client)
    wait_until(lambda: len(closed) == 1)


def test_a_key_of_another_certificate_is_a_config_error(files):
    files.rotate("cert")
    with pytest.raises(featurewire.ConfigError, match=r"key\.pem does not belong to the cert"):
        featurewire.Client("localhost:1", model="m", tls=files.tls)
