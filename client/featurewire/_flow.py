"""The steps of a method, which both clients take alike."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from typing import TypeVar

from featurewire._rpc.call import Job

__all__ = ["Flow", "T"]

T = TypeVar("T")
Flow = Generator["Job | float | tuple[Future[None], float]", None, T]
"""The steps of a method: yields what to wait for, a job, seconds, or a future
and until when, and returns the result."""
