"""Configuration of streams: how images are packed and sent."""

from __future__ import annotations

from dataclasses import dataclass

from featurewire._config.checks import check_numbers, checked

MIB = 1 << 20


@checked
@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How `stream` and `embed_batch` pack images into requests and how many they keep in flight."""

    images_per_request: int = 16
    """Maximum number of images in one Predict request. If the server's `max_batch_size` is lower,
    the stream notices it and sends smaller requests."""
    bytes_per_request: int = 8 * MIB
    """Maximum number of bytes of images in one request. A bigger image is sent alone."""
    max_in_flight: int = 32
    """Maximum number of requests in flight. The stream finds out how many the server can use."""
    in_flight: int | None = None
    """Fixed number of requests in flight, instead of the one that the stream finds out."""
    bytes_in_flight: int = 128 * MIB
    """Maximum number of bytes of images in flight, over all requests of the stream. The process
    holds up to three times as much: the images, their requests, and gRPC's buffers."""
    linger: float = 0.1
    """Longest time that an image waits for others to fill its request, if the iterable is slow."""
    patience: float = 300.0
    """Time for which a stream keeps trying an unreachable or overloaded server before it raises. If
    the client has never had a reply, `RetryConfig` decides instead. Time in which the consumer
    handles a result does not count."""
    readers: int = 1
    """Number of paths and functions of the source that are read at the same time."""
    pin_version: bool = False
    """Resolve the label (or the newest version) once, at the start of the stream, and use that
    version to the end."""

    def __post_init__(self) -> None:
        check_numbers(self, "images_per_request", "bytes_per_request", low=1, whole=True)
        check_numbers(self, "max_in_flight", low=1, whole=True)
        if self.in_flight is not None:
            check_numbers(self, "in_flight", low=1, whole=True)
        check_numbers(self, "bytes_in_flight", "readers", low=1, whole=True)
        check_numbers(self, "linger", "patience", low=0)
