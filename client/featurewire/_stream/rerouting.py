"""Requests that a version answered without vectors of the space that is wanted."""

from __future__ import annotations

from featurewire._errors import FeaturewireError, ModelNotFoundError, lacks_signature
from featurewire._stream.packing import Pack
from featurewire._wire.predict import Codec

__all__ = ["Rerouting"]

MAX_TIMES = 8
"""How often one request may go again for its vector space."""


class Rerouting:
    """Which codec each request goes with, and what a wrong answer says about the next ones.

    A label can move to a version of another space in the middle of a stream. Then nothing is sent
    until the resolver has found a version that gives vectors of the wanted space: `redirect`.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._elsewhere: Codec | None = None
        """Codec for requests that were answered in another vector space."""
        self.astray: int | None = None
        """The version that answered in another space; 0 if unknown, None without such an answer."""
        self.first = 0
        """The first place of a request that it answered."""

    def codec(self, pack: Pack) -> Codec:
        """Build and read this request with it."""
        pack.codec = self._elsewhere if pack.redirected and self._elsewhere else self._codec
        return pack.codec

    def is_astray(self, pack: Pack, error: FeaturewireError) -> bool:
        """Whether the request failed because the label moved to another version."""
        codec = pack.codec
        if codec is None or codec.versions is None or self._codec.pinned is not None:
            return False
        gone = codec.pinned is not None and isinstance(error, ModelNotFoundError)
        return gone or lacks_signature(error)

    def note(self, pack: Pack, version: int) -> bool:
        """This version answered it; False when the request has gone again too often."""
        pack.redirected += 1
        if pack.redirected > MAX_TIMES:
            return False
        self.first = pack.first if self.astray is None else min(self.first, pack.first)
        self.astray = version
        return True

    def redirect(self, codec: Codec, elsewhere: Codec) -> None:
        """Go on with `codec`; requests that were answered in another space go with `elsewhere`."""
        self.astray = None
        self._codec, self._elsewhere = codec, elsewhere
