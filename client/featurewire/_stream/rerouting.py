"""Finds another version for requests that were answered in the wrong vector space."""

from __future__ import annotations

from featurewire._errors import FeaturewireError, ModelNotFoundError, lacks_signature
from featurewire._stream.requests import PendingRequest
from featurewire._wire.predict import Codec

MAX_TIMES = 8
"""Number of times that one request may be sent again because of its vector space."""


class Rerouting:
    """Chooses the codec of each request, and records answers in the wrong vector space.

    A label can move to a version with another vector space during a stream. Then the stream stops
    sending, and the resolver looks for a version that gives the wanted vectors: `redirect`.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._pinned_codec: Codec | None = None
        """Codec for requests that were answered in another vector space."""
        self.wrong_space_version: int | None = None
        """The version that answered in another space; 0 if unknown, None without such an answer."""
        self.first = 0
        """Number of the first image of the requests that were answered in another space."""

    def codec(self, pending: PendingRequest) -> Codec:
        """The codec that builds and reads this request."""
        pending.codec = (
            self._pinned_codec if pending.redirected and self._pinned_codec else self._codec
        )
        return pending.codec

    def needs_reroute(self, pending: PendingRequest, error: FeaturewireError) -> bool:
        """Whether the request failed because the label moved to another version."""
        codec = pending.codec
        if codec is None or codec.versions is None or self._codec.pinned is not None:
            return False
        gone = codec.pinned is not None and isinstance(error, ModelNotFoundError)
        return gone or lacks_signature(error)

    def note(self, pending: PendingRequest, version: int) -> bool:
        """Record an answer in the wrong space. Returns False after MAX_TIMES of them."""
        pending.redirected += 1
        if pending.redirected > MAX_TIMES:
            return False
        self.first = (
            pending.first if self.wrong_space_version is None else min(self.first, pending.first)
        )
        self.wrong_space_version = version
        return True

    def redirect(self, codec: Codec, pinned_codec: Codec) -> None:
        """Continue with `codec`; requests that are sent again use `pinned_codec`."""
        self.wrong_space_version = None
        self._codec, self._pinned_codec = codec, pinned_codec
