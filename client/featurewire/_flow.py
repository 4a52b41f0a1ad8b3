"""The steps that the client's methods are made of.

A method is a generator that yields steps and does no I/O. `Client` runs the steps with blocking
calls, `AsyncClient` in an event loop, so both share one implementation.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from featurewire._embedding import Result
from featurewire._rpc.call import Job


@dataclass(frozen=True, slots=True)
class Send:
    """Send a job's attempts and report their outcomes, until the job is finished."""

    job: Job


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a future, at most until this time of the monotonic clock."""

    future: Future[Any]
    until: float


@dataclass(frozen=True, slots=True)
class Collect:
    """Wait for outcomes of the stream's requests, at most until this time."""

    until: float


@dataclass(frozen=True, slots=True)
class Deliver:
    """Yield results to the caller."""

    results: list[Result[Any]]


T = TypeVar("T")
Step: TypeAlias = Send | Sleep | Wait
StreamStep: TypeAlias = Step | Collect | Deliver
Flow: TypeAlias = Generator[Step, None, T]
"""A generator that yields steps and returns a T."""
