"""The client's page documents every setting, error and method."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import featurewire
from featurewire._wire.replies import STATUS_NAMES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text()


def section(title: str) -> str:
    """The text under a heading, up to the next one of the same or a higher level."""
    match = re.search(rf"^(#+) {re.escape(title)}$(.*?)(?=^#{{1,2}} |\Z)", PAGE, re.M | re.S)
    assert match, title
    return match[2]


@pytest.mark.parametrize("config", ["RetryConfig", "StreamConfig", "TLSConfig", "ChannelConfig"])
def test_every_field_is_in_the_table_of_its_config(config):
    text = section(f"`{config}`")
    for field in dataclasses.fields(getattr(featurewire, config)):
        assert f"`{field.name}`" in text, field.name


def test_defaults_in_the_tables_are_the_real_ones():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", PAGE, re.M))
    stream, retry = featurewire.StreamConfig(), featurewire.RetryConfig()
    assert int(rows["images_per_request"]) == stream.images_per_request
    assert rows["bytes_per_request"] == f"{stream.bytes_per_request >> 20} MiB"
    assert int(rows["initial_in_flight"]) == stream.initial_in_flight
    assert rows["bytes_in_flight"] == f"{stream.bytes_in_flight >> 20} MiB"
    assert rows["linger"] == f"{stream.linger:g} s"
    assert rows["patience"] == f"{stream.patience:g} s"
    assert int(rows["max_attempts"]) == retry.max_attempts
    assert f"| {stream.min_in_flight}, {stream.max_in_flight} |" in PAGE
    channel = featurewire.ChannelConfig()
    assert f"| {channel.keepalive_time:g} s, {channel.keepalive_timeout:g} s |" in PAGE
    assert rows["connect_timeout"] == f"{channel.connect_timeout:g} s"
    assert rows["max_reconnect_backoff"] == f"{channel.max_reconnect_backoff:g} s"


def test_every_error_and_reason_says_what_to_do():
    text = section("Errors")
    for name in featurewire.__all__:
        kind = getattr(featurewire, name)
        if isinstance(kind, type) and issubclass(kind, featurewire.FeaturewireError):
            assert f"`{name}`" in text, name
    for reason in [*STATUS_NAMES.values(), "rejected", "unknown", "not_finite", "unreadable"]:
        assert f"`{reason}`" in text, reason


def test_every_argument_method_and_counter_is_described():
    for name in inspect.signature(featurewire.Client).parameters:
        assert f"`{name}`" in PAGE or f"{name}=" in PAGE, name
    for name, _ in inspect.getmembers(featurewire.Client, callable):
        if not name.startswith("_"):
            assert f"`{name}(" in PAGE, name
    for field in dataclasses.fields(featurewire.Stats):
        assert f"`{field.name}`" in PAGE, field.name


def test_every_link_within_the_page_has_its_heading():
    headings = {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings
