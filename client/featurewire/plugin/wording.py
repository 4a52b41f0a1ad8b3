"""The library's errors in the words of the command line.

The library advises its callers in the names of its own arguments (`raise timeout=…`); who types a
command has options.
"""

from __future__ import annotations

import re

_OPTIONS = {
    "target": "--server",
    "model": "--model",
    "version": "--version",
    "label": "--label",
    "timeout": "--timeout",
    "signature": "--signature",
    "input": "--input-name",
    "output": "--output-name",
    "tls": "--tls",
    "ca": "--tls-ca",
    "cert": "--tls-cert",
    "key": "--tls-key",
    "server_name": "--tls-server-name",
    "token": "--token-file",
    "patience": "--patience",
    "vector_space": "--vector-space",
}

_PHRASES = [
    ("lower StreamConfig(bytes_per_request=…) or raise", "raise"),
    (" (StreamConfig(bytes_per_request=…))", ""),
    ("ChannelConfig(token=…) would travel", "the token in --token-file would travel"),
    (
        "set tls=TLSConfig(), or, where something below encrypts, pass it in metadata",
        "add --tls or --tls-ca FILE",
    ),
    ("ChannelConfig(token=…, metadata=…)", "--token-file"),
    ("that metadata() lists with", "that the model has with"),
    (": wait_until_ready()", ": wait for it with --wait SECONDS"),
    ("wait_until_ready()", "--wait SECONDS"),
    ("tls=TLSConfig()", "--tls"),
    ("TLSConfig(…)", "the --tls options"),
]

_CONFIGS = re.compile(r"\b(?:TLS|Channel|Stream)Config\(((?:\w+=…(?:, )?)+)\)")
_PEM = re.compile(r"^TLSConfig\(([a-z_]+|\{\})=")
_KEYWORD = re.compile(r"\b([a-z_]+)=…")
_SUBJECT = re.compile(r"^(?:TLSConfig: )?(?:([a-z_]+)=|(target) )(?=['\"\d-])")


def in_options(error: Exception | str) -> str:
    """The text of one of the library's errors, with options in the place of arguments."""
    text = str(error)
    for ours, theirs in _PHRASES:
        text = text.replace(ours, theirs)
    if (pem := _PEM.match(text)) and "): " in text:
        text = f"{_OPTIONS.get(pem[1], pem[1])} {text[pem.end() :].replace('): ', ': ', 1)}"
    text = _CONFIGS.sub(lambda match: match[1], text)
    text = _KEYWORD.sub(lambda match: _OPTIONS.get(match[1], match[0]), text)
    text = _SUBJECT.sub(_subject, text)
    return text.removeprefix("TLSConfig: ")


def _subject(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    return f"{_OPTIONS[name]} " if name in _OPTIONS else match[0]
