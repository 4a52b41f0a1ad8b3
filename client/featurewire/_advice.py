"""What to do about an error, by key. Commands replace advice that names an argument."""

from __future__ import annotations

ADVICE = {
    "size": "the message is over a size limit; lower StreamConfig(bytes_per_request=…) or raise "
    "the limit of the side that the text names",
    "load": "send less at once, or add servers",
    "threads": "by default TensorFlow Serving runs 4 calls per processor at a time; start it "
    "with --grpc_max_threads=256, send less at once, or add servers",
    "not gRPC": "the server at this address does not speak gRPC; TensorFlow Serving's gRPC port "
    "is usually 8500, its REST port 8501",
    "TLS": "the TLS handshake failed; check TLSConfig(ca=…, cert=…, key=…, server_name=…) and "
    "whether that port speaks TLS",
    "cut off by TLS": "the server closed the connection during the TLS handshake or right after "
    "it; if it asks for a client certificate, set TLSConfig(cert=…, key=…)",
    "perhaps TLS": "the server closed the connection at once; if that port speaks TLS, set "
    "tls=TLSConfig(…)",
    "host name": "TLS: the server's certificate is for another host name; give that name with "
    "TLSConfig(server_name=…)",
    "DNS": "the host name does not resolve; check the address",
    "address": "check the address and that the server runs (`featurewire status --server …`)",
    "address or TLS": "check the address and that the server runs; if it does, the TLS handshake "
    "with another address of that host may have failed: check TLSConfig(ca=…, "
    "cert=…, key=…, server_name=…)",
    "channel": "check ChannelConfig(load_balancing=…, options=…)",
    "time": "raise timeout=… or send less at once",
    "silent": "this server has never answered; check the address, or raise timeout=…",
    "model": "check model=…, version=… and label=…; if the model is still loading, call "
    "wait_until_ready()",
    "label": "no version has this label in the server's config; check label=…",
    "signature": "choose one of the signatures that metadata() lists with signature=…",
    "API": "the server does not implement TensorFlow Serving's gRPC API; check host and port",
    "token": "check ChannelConfig(token=…) and TLSConfig(…)",
    "which signature": "choose one with signature=…",
    "which input": "choose one with input=…",
    "which output": "choose one with output=…",
    "output": "set output=… to the output that holds the vectors",
    "wait": "call wait_until_ready()",
    "name": "check model=…, version=… and label=…",
    "proxy": "if the server needs no proxy, add its host to no_proxy",
    "more time": "raise timeout=…",
    "files": "raise timeout=… or check the disk",
    "encrypt": "for TLS, set tls=TLSConfig()",
    "encrypt the token": "set tls=TLSConfig(); if a proxy encrypts the connection, pass the "
    "token in metadata=…",
    "rights": "check ChannelConfig(token=…, metadata=…)",
}
