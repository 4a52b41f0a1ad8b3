"""How images are packed and sent."""

from __future__ import annotations

from dataclasses import dataclass

from featurewire._config.checks import check_numbers, checked

__all__ = ["StreamConfig"]

MIB = 1 << 20


@checked
@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How `stream` and `embed_batch` pack images into requests and how many they keep in flight."""

    images_per_request: int = 16
    """At most so many images in one Predict request. A server whose `max_batch_size` is lower is
    noticed, and requests shrink to it."""
    bytes_per_request: int = 8 * MIB
    """At most so many bytes of images in one request; a bigger image travels alone."""
    max_in_flight: int = 32
    """Maximum number of requests in flight. The stream finds out how many the server can use."""
    in_flight: int | None = None
    """Keep this many requests in flight instead of finding the number out."""
    bytes_in_flight: int = 128 * MIB
    """Bytes of images in flight at most, over all requests of the stream. The process holds up to
    three times as much: the images, their requests, and what gRPC is sending."""
    linger: float = 0.1
    """How long an image waits for others to fill its request, when the iterable is slow."""
    patience: float = 300.0
    """How long a stream keeps trying a server that is gone or overloaded before it raises, once
    the client has had a reply to anything. Before that the usual retries decide. The time in which
    the consumer holds a result does not count."""
    readers: int = 1
    """Paths and callables of the source that are read at the same time."""
    pin_version: bool = False
    """Resolve the label (or the newest version) once, when a stream begins, and keep to it."""

    def __post_init__(self) -> None:
        check_numbers(self, "images_per_request", "bytes_per_request", low=1, whole=True)
        check_numbers(self, "max_in_flight", low=1, whole=True)
        if self.in_flight is not None:
            check_numbers(self, "in_flight", low=1, whole=True)
        check_numbers(self, "bytes_in_flight", "readers", low=1, whole=True)
        check_numbers(self, "linger", "patience", low=0)
