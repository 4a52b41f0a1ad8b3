"""Keep fast tests fast: a test without the marker `slow` fails if it uses too much CPU time.

The time includes the test's process, child processes that have ended, and forked programs, during
the test and its own fixtures, but not during shared fixtures. Wall-clock time does not matter, so a
busy machine does not fail a test.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import warm

OPTION = "fast_test_cpu_seconds"

FIRST_IMPORT_SECONDS = {"tensorflow": 20.0, "openvino": 5.0, "nncf": 10.0}
"""Additional CPU time for the first test of a process that imports a library."""


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "maximum CPU seconds of a test without the marker `slow`"
    parser.addini(OPTION, text, default="10")  # Not in pyproject.toml: --noconftest rejects it.


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(CpuLimit(float(config.getini(OPTION))), "cpu_limit")


def cpu_seconds() -> float:
    """CPU time until now of this process, its ended children and its ended programs."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.process_time()
    return own + children.ru_utime + children.ru_stime + warm.cpu_seconds()


class CpuLimit:
    """Measures each test."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._started = 0.0
        self._shared = 0.0
        """CPU time since the start of the test that belongs to shared fixtures."""
        self._mark = 0.0
        """CPU time when the last fixture was torn down."""
        self._missing: set[str] = set()
        """Heavy libraries that were not imported at the start of the test."""
        self._depth = 0
        """Number of shared fixtures that are being set up, because they can be nested."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        self._started, self._shared = cpu_seconds(), 0.0
        self._missing = FIRST_IMPORT_SECONDS.keys() - sys.modules.keys()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        if fixturedef.scope == "function" or self._depth:
            return (yield)
        before = cpu_seconds()
        self._depth += 1
        try:
            return (yield)
        finally:
            self._depth -= 1
            self._shared += cpu_seconds() - before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Iterator[None]:
        self._mark = cpu_seconds()
        return (yield)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        now = cpu_seconds()
        if fixturedef.scope != "function":
            self._shared += now - self._mark
        self._mark = now

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Iterator[None]:
        report: Any = yield
        if call.when == "teardown" and report.passed and not item.get_closest_marker("slow"):
            used = cpu_seconds() - self._started - self._shared
            imported = self._missing & sys.modules.keys()
            if used > self._limit + sum(FIRST_IMPORT_SECONDS[name] for name in imported):
                report.outcome = "failed"
                report.longrepr = (
                    f"{used:.1f} s of CPU time; tests without @pytest.mark.slow may take "
                    f"{self._limit:g} s"
                )
        return report
