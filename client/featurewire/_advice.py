"""What to do about an error, by key. Commands replace advice that names an argument."""

from __future__ import annotations

__all__ = ["ADVICE"]

ADVICE = {
    "size": "the message is over a size limit; lower StreamConfig(bytes_per_request=…) or raise "
    "the limit on the side that the text names",
    "load": "send less at once, or add servers",
    "threads": "TensorFlow Serving takes 4 calls per processor at once unless it is started with "
    "--grpc_max_threads=256 or so; set that flag, send less at once, or add servers",
    "not gRPC": "something else than a gRPC server answers there; TensorFlow Serving's gRPC port "
    "is usually 8500, its REST port 8501",
    "TLS": "the TLS handshake failed; check TLSConfig(ca=…, cert=…, key=…, server_name=…) and "
    "whether that port speaks TLS",
    "cut off by TLS": "the server hung up during the TLS handshake or right after it; if it asks "
    "for a client's certificate, set TLSConfig(cert=…, key=…)",
    "perhaps TLS": "the server hung up at once; if that port speaks TLS, set tls=TLSConfig(…)",
    "host name": "TLS: the server's certificate is for another host name; name the one that it is "
    "for with TLSConfig(server_name=…)",
    "DNS": "the host name does not resolve; check the address",
    "address": "check the address and that the server runs (`featurewire status --server …`)",
    "address or TLS": "check the address and that the server runs; if it does, a TLS handshake may "
    "have failed at another address of that name: check TLSConfig(ca=…, cert=…, key=…, "
    "server_name=…)",
    "channel": "check ChannelConfig(load_balancing=…, options=…)",
    "time": "raise timeout=… or send fewer images",
    "silent": "nothing has ever answered there; check the address, or raise timeout=…",
    "model": "check model=…, version=… and label=…; a model that is still loading answers once it "
    "is AVAILABLE: wait_until_ready()",
    "label": "the server's config gives no version this label; check label=…",
    "signature": "name one of the signatures that metadata() lists with signature=…",
    "API": "the server there does not speak TensorFlow Serving's gRPC API; check host and port",
    "token": "check ChannelConfig(token=…) and TLSConfig(…)",
    "which signature": "name one of them with signature=…",
    "which input": "name one with input=…",
    "which output": "name one with output=…",
    "output": "name the vector's output with output=…",
    "wait": "wait_until_ready()",
    "more time": "raise timeout=…",
    "files": "raise timeout=…, or look at the disk",
    "encrypt": "TLS is switched on with tls=TLSConfig()",
    "encrypt the token": "set tls=TLSConfig(), or, where something below encrypts, pass it in "
    "metadata",
    "rights": "check ChannelConfig(token=…, metadata=…)",
}
