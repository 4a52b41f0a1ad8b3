"""Image bytes in, feature vectors out: a thin client for TensorFlow Serving.

    with featurewire.Client("localhost:8500", model="inception_resnet_v2") as client:
        embedding = client.embed(jpeg_bytes)

Names are imported at their first use, so that `import featurewire` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurewire._async_client import AsyncClient as AsyncClient
    from featurewire._client import Client as Client
    from featurewire._config import ChannelConfig as ChannelConfig
    from featurewire._config import RetryConfig as RetryConfig
    from featurewire._config import StreamConfig as StreamConfig
    from featurewire._config import TLSConfig as TLSConfig
    from featurewire._embedding import Embedding as Embedding
    from featurewire._embedding import EmbeddingBatch as EmbeddingBatch
    from featurewire._embedding import Result as Result
    from featurewire._errors import ConfigError as ConfigError
    from featurewire._errors import DeadlineExceededError as DeadlineExceededError
    from featurewire._errors import FeaturewireError as FeaturewireError
    from featurewire._errors import ImageError as ImageError
    from featurewire._errors import InvalidRequestError as InvalidRequestError
    from featurewire._errors import ModelNotFoundError as ModelNotFoundError
    from featurewire._errors import OverloadedError as OverloadedError
    from featurewire._errors import ResponseError as ResponseError
    from featurewire._errors import ServerError as ServerError
    from featurewire._errors import ServerUnavailableError as ServerUnavailableError
    from featurewire._errors import VectorSpaceError as VectorSpaceError
    from featurewire._rpc.stats import Stats as Stats
    from featurewire._stream.stream import StreamProgress as StreamProgress
    from featurewire._wire.status import ModelMetadata as ModelMetadata
    from featurewire._wire.status import ModelStatus as ModelStatus
    from featurewire._wire.status import Signature as Signature
    from featurewire._wire.status import TensorSpec as TensorSpec
    from featurewire._wire.status import VersionStatus as VersionStatus

__version__ = "0.1.0"
_DEFAULT_TIMEOUT = 60.0
"""Seconds for a whole call. Defined here so that the command's `--help` can read it without
importing the library."""

_MODULES = {
    "AsyncClient": "_async_client",
    "ChannelConfig": "_config",
    "Client": "_client",
    "ConfigError": "_errors",
    "DeadlineExceededError": "_errors",
    "Embedding": "_embedding",
    "EmbeddingBatch": "_embedding",
    "FeaturewireError": "_errors",
    "ImageError": "_errors",
    "InvalidRequestError": "_errors",
    "ModelMetadata": "_wire.status",
    "ModelNotFoundError": "_errors",
    "ModelStatus": "_wire.status",
    "OverloadedError": "_errors",
    "ResponseError": "_errors",
    "Result": "_embedding",
    "RetryConfig": "_config",
    "ServerError": "_errors",
    "ServerUnavailableError": "_errors",
    "Signature": "_wire.status",
    "Stats": "_rpc.stats",
    "StreamConfig": "_config",
    "StreamProgress": "_stream.stream",
    "TLSConfig": "_config",
    "TensorSpec": "_wire.status",
    "VectorSpaceError": "_errors",
    "VersionStatus": "_wire.status",
}
"""Public names, and the module that each one is imported from."""

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'featurewire' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featurewire.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
