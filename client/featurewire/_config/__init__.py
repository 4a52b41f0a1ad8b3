"""Configuration classes: frozen, keyword-only and validated. Times in seconds, sizes in bytes."""

from featurewire._config.channel import ChannelConfig, Metadata, checked_token
from featurewire._config.checks import names_checked
from featurewire._config.retry import RetryConfig
from featurewire._config.settings import (
    CONFIGS,
    UNSET,
    Settings,
    Timeout,
    Unset,
    check_timeout,
)
from featurewire._config.stream import StreamConfig
from featurewire._config.tls import TLSConfig

__all__ = [
    "CONFIGS",
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
    "names_checked",
]
