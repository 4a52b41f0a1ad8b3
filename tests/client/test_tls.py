"""TLS and mutual TLS with a server whose certificate has a private authority."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

import featurewire
from featurewire import ChannelConfig, RetryConfig, TLSConfig
from tests.client.misbehaving import Misbehaving, image, vector_of
from tests.support.process import free_port

NEVER = RetryConfig(max_attempts=1)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue_cert("localhost")


def credentials(certificate, *, clients: trustme.CA | None = None):
    key = certificate.private_key_pem.bytes()
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    return grpc.ssl_server_credentials(
        [(key, chain)],
        root_certificates=clients.cert_pem.bytes() if clients else None,
        require_client_auth=clients is not None,
    )


@pytest.fixture(scope="module")
def server(certificate):
    with Misbehaving(credentials=credentials(certificate)) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(certificate, authority):
    with Misbehaving(credentials=credentials(certificate, clients=authority)) as server:
        yield server


def works(client) -> bool:
    return np.array_equal(client.embed(image(3)).vector, vector_of(image(3)))


def test_a_trusted_server_is_spoken_to(connect, server, authority):
    client = connect(server.target, tls=TLSConfig(ca=authority.cert_pem.bytes()))
    assert works(client)
    assert len(list(client.stream([image(1), image(2)]))) == 2


def test_certificates_come_from_files_too(connect, server, authority, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.cert_pem.bytes())
    assert works(connect(server.target, tls=TLSConfig(ca=ca)))


def test_a_server_of_an_unknown_authority_is_refused(connect, server):
    tls = TLSConfig(ca=trustme.CA().cert_pem.bytes())
    with pytest.raises(featurewire.ServerUnavailableError, match="TLS"):
        connect(server.target, tls=tls, retry=NEVER).embed(image(1))


def test_a_server_with_another_name_is_refused_unless_expected(connect, server, authority):
    target = f"127.0.0.1:{server.port}"
    ca = authority.cert_pem.bytes()
    with pytest.raises(featurewire.ServerUnavailableError):
        connect(target, tls=TLSConfig(ca=ca), retry=NEVER).embed(image(1))
    assert works(connect(target, tls=TLSConfig(ca=ca, server_name="localhost")))


def test_without_tls_a_tls_server_is_unavailable(connect, server):
    with pytest.raises(featurewire.ServerUnavailableError):
        connect(server.target, retry=NEVER, timeout=60).embed(image(1))


def test_mutual_tls_needs_the_clients_certificate(connect, mutual, authority):
    ca = authority.cert_pem.bytes()
    mine = authority.issue_cert("search-service.example")
    tls = TLSConfig(ca=ca, cert=mine.cert_chain_pems[0].bytes(), key=mine.private_key_pem.bytes())
    assert works(connect(mutual.target, tls=tls))
    with pytest.raises(featurewire.ServerUnavailableError):
        connect(mutual.target, tls=TLSConfig(ca=ca), retry=NEVER, timeout=60).embed(image(1))


def test_a_bearer_token_travels_over_tls(connect, server, authority):
    client = connect(
        server.target,
        tls=TLSConfig(ca=authority.cert_pem.bytes()),
        channel=ChannelConfig(token=lambda: "t0ken"),
    )
    client.embed(image(1))
    assert server.call_metadata[-1]["authorization"] == "Bearer t0ken"


def failures(server, mutual, authority, plain):
    ours, foreign = authority.cert_pem.bytes(), trustme.CA()
    stranger = foreign.issue_cert("client")
    pair: dict[str, Any] = {
        "cert": stranger.cert_chain_pems[0].bytes(),
        "key": stranger.private_key_pem.bytes(),
    }
    return {
        "wrong host name": (f"127.0.0.1:{server.port}", TLSConfig(ca=ours), "server_name="),
        "foreign authority": (server.target, TLSConfig(ca=foreign.cert_pem.bytes()), "ca="),
        "no certificate of ours": (mutual.target, TLSConfig(ca=ours), "cert=…, key=…"),
        "a foreign one of ours": (mutual.target, TLSConfig(ca=ours, **pair), "cert=…, key=…"),
        "plain text on a TLS port": (server.target, None, r"set tls=TLSConfig"),
        "TLS on a plain port": (plain.target, TLSConfig(ca=ours), "speaks TLS"),
    }


def test_failures_of_tls_say_tls_and_what_to_set(connect, server, mutual, authority):
    with Misbehaving() as plain:
        for name, (target, tls, words) in failures(server, mutual, authority, plain).items():
            with pytest.raises(featurewire.ServerUnavailableError, match=r"TLS.*") as caught:
                connect(target, tls=tls, retry=NEVER).embed(image(1))
            assert re.search(words, str(caught.value)), (name, str(caught.value))


def test_tls_is_named_where_another_address_refuses(connect, server, mutual, authority):
    """The second address of a name refuses connections; gRPC reports only one address."""
    with Misbehaving() as plain:
        for name, (target, tls, _) in failures(server, mutual, authority, plain).items():
            if tls is None:
                continue
            port = target.rpartition(":")[2]
            expected = "localhost" if name != "wrong host name" else "other.example"
            both = f"ipv4:127.0.0.1:{port},127.0.0.2:{port}"
            client = connect(
                both,
                tls=dataclasses.replace(tls, server_name=expected),
                retry=RetryConfig(max_attempts=4, initial_backoff=0.1, max_backoff=0.1),
            )
            with pytest.raises(featurewire.ServerUnavailableError, match=r"TLSConfig\("):
                client.embed(image(1))


def test_a_refused_connection_names_tls_only_where_it_is_set(connect, authority):
    target = f"localhost:{free_port()}"
    tls = TLSConfig(ca=authority.cert_pem.bytes())
    with pytest.raises(
        featurewire.ServerUnavailableError, match=r"refused .*; check the address.*TLS"
    ):
        connect(target, tls=tls, retry=NEVER).embed(image(1))
    with pytest.raises(featurewire.ServerUnavailableError, match=r"refused .*; check the") as plain:
        connect(target, retry=NEVER).embed(image(1))
    assert "TLS" not in str(plain.value)


def test_tls_is_not_blamed_where_the_server_has_answered(connect, certificate, authority):
    with Misbehaving(credentials=credentials(certificate)) as server:
        client = connect(server.target, tls=TLSConfig(ca=authority.cert_pem.bytes()), retry=NEVER)
        assert works(client)
    with pytest.raises(featurewire.ServerUnavailableError) as caught:
        client.embed(image(1))
    assert "TLS" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"ca": b"garbage"},
        {"ca": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"cert": b"garbage", "key": b"garbage"},
    ],
)
def test_garbage_is_a_config_error(config):
    with pytest.raises(featurewire.ConfigError, match=r"TLSConfig\((ca|cert)=…\)"):
        featurewire.Client("localhost:1", model="m", tls=TLSConfig(**config))


@pytest.mark.parametrize("body", ["AAAA", "MA==", "MIIB" + 90 * "AAAA", "!"])
def test_a_garbage_key_inside_its_armour_is_a_config_error(authority, body):
    ours = authority.issue_cert("client")
    key = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n".encode()
    tls = TLSConfig(cert=ours.cert_chain_pems[0].bytes(), key=key)
    with pytest.raises(featurewire.ConfigError, match=r"TLSConfig\(key=…\)"):
        featurewire.Client("localhost:1", model="m", tls=tls)
