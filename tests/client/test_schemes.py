"""Messages do not claim that vector spaces named under different schemes differ."""

from __future__ import annotations

import pytest

import featurewire
from featurewire.manifest.spaces import other_schemes
from tests.client.test_views import SPACES, server

__all__ = ["server"]

OLD, NEW = "0123456789abcdef" * 2, "graph-1-" + "f" * 32


@pytest.mark.parametrize(
    ("one", "other"),
    [(OLD, "f" * 32), (NEW, "graph-1-" + "0" * 32), (OLD, OLD), (NEW, None), ("a", NEW), ("", OLD)],
)
def test_nothing_is_said_of_names_of_one_scheme_or_of_none(one, other):
    assert other_schemes(one, other) == ""


def test_two_schemes_are_named():
    assert "(weights-1 and graph-1)" in other_schemes(OLD, NEW)
    assert "(graph-1 and weights-1)" in other_schemes(NEW, OLD)


def test_a_client_of_an_older_index_is_told_to_measure(connect, server, monkeypatch):
    monkeypatch.setitem(SPACES, 1, NEW)
    with pytest.raises(featurewire.VectorSpaceError, match="rollout check` measures"):
        connect(server.target, label="stable", vector_space=OLD).embed(b"\xff\xd8\xff")
