"""What can be set: frozen, keyword-only, checked when made. Times are seconds, sizes bytes."""

from featurewire._config.channel import ChannelConfig, Metadata, checked_token
from featurewire._config.retry import RetryConfig
from featurewire._config.settings import (
    UNSET,
    Settings,
    Timeout,
    Unset,
    check_timeout,
    made_with,
)
from featurewire._config.stream import StreamConfig
from featurewire._config.tls import TLSConfig

__all__ = [
    "UNSET",
    "ChannelConfig",
    "Metadata",
    "RetryConfig",
    "Settings",
    "StreamConfig",
    "TLSConfig",
    "Timeout",
    "Unset",
    "check_timeout",
    "checked_token",
    "made_with",
]
