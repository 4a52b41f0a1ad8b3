"""Re-embedding an index that is in use: it survives kills and switches atomically."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WHY = "needs the samples' own packages: run `make test-samples`"
pytest.importorskip("faiss", reason=WHY)
pytest.importorskip("lancedb", reason=WHY)

import featurewire  # noqa: E402
from tests.support.migration import (  # noqa: E402
    Backfill,
    Query,
    Replicas,
    Traffic,
    WrongSpaceError,
    add,
    open_index,
)
from tests.support.project import in_project  # noqa: E402

OLD, NEW = "turned-1", "turned-2"
ROWS = 3000
"""Rows for the test with kills: enough that no run ends before its kill."""
FEW = 1200


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base path in which version 2 has a bridge to the space of version 1."""
    folder = tmp_path_factory.mktemp("models") / "turned"
    in_project(
        "-c",
        "import sys; from pathlib import Path\n"
        "from tests.support.models import write_turned_model\n"
        "write_turned_model(Path(sys.argv[1]), 1)\n"
        "write_turned_model(Path(sys.argv[1]), 2, bridge_to=1)\n",
        str(folder),
    )
    return folder


@pytest.fixture
def replicas(turned: Path, tmp_path: Path) -> Iterator[Replicas]:
    with Replicas(turned, tmp_path, "--engine=tensorflow") as replicas:
        yield replicas


@pytest.fixture(params=["lance", "faiss"])
def backfill(request: pytest.FixtureRequest, replicas: Replicas, tmp_path: Path) -> Backfill:
    images = tmp_path / "images"
    images.mkdir()
    return Backfill(replicas, request.param, tmp_path / "index", images)


def write_image(folder: Path, number: int) -> str:
    name = f"{number:05}.jpg"
    (folder / name).write_bytes(b"\xff\xd8\xff" + number.to_bytes(4, "big"))
    return name


def check_rows(
    index: Any, space: str, images: Path, client: featurewire.Client, every: int = 1
) -> None:
    """Check that every image has one row, and (for every n-th row) that its vector is right."""
    names = index.names(space)
    assert sorted(names) == sorted(set(names))
    native = client.with_options(vector_space=space)
    for result in native.stream((name, images / name) for name in names[::every]):
        name, cosine = index.nearest(space, result.unwrap().vector, 1)[0]
        assert (name, cosine > 0.9999) == (result.key, True)


def test_ten_random_kills_lose_no_row_and_write_none_twice(backfill, replicas):
    images, index = backfill.images, backfill.index()
    names = [write_image(images, number) for number in range(ROWS)]
    with replicas.client() as client:
        assert add(index, client, images, names) == {}
        replicas.rollout("start", "--version=2")
        replicas.rollout("promote", "--accept-bridge")
        backfill.kill_at_random(NEW, times=10)
        assert index.current() == OLD
        with pytest.raises(WrongSpaceError, match="do not read the vectors of turned-2 yet"):
            index.search(NEW, np.ones(16, np.float32), 1)
        with pytest.raises(WrongSpaceError, match="searches read turned-1"):
            index.add(NEW, ["a"], np.ones((1, 16), np.float32))
        assert f"searches read {NEW}: {ROWS} rows" in backfill.finish()
        assert index.current() == NEW
        assert sorted(index.names(NEW)) == names
        check_rows(index, NEW, images, client, every=10)
        assert "already" in backfill.finish()


def test_a_model_change_under_load_fails_nothing_and_mixes_no_spaces(backfill, replicas):
    """Two replicas, a writer and readers: rollout with a bridge, backfill, switch, retirement."""
    images, index = backfill.images, backfill.index()
    names = [write_image(images, number) for number in range(FEW)]

    def query(rows: int) -> Query:
        number = random.randrange(rows)
        name = f"{number:05}.jpg"
        return Query(number, name, (images / name).read_bytes())

    with replicas.client() as client:
        assert add(index, client, images, names) == {}
        with Traffic(
            backfill, names, write=lambda number: write_image(images, number), query=query
        ) as traffic:
            traffic.goes_on()
            replicas.rollout("start", "--version=2")
            replicas.rollout("promote", "--accept-bridge")
            traffic.goes_on()
            assert client.with_options(vector_space=OLD).embed(b"\xff\xd8\xff").bridged
            backfill.kill_at_random(NEW, times=2)
            traffic.goes_on()
            assert index.current() == OLD
            backfill.finish()
            traffic.goes_on()
            replicas.rollout("retire")
            traffic.goes_on()
        assert traffic.failures == []
        assert {each.rank for each in traffic.searches} == {1}
        assert index.current() == NEW
        # Rows from before the switch are in both tables, later ones only in the new one.
        assert sorted(index.names(NEW)) == names
        assert set(index.names(OLD)) < set(names)
        for space in (OLD, NEW):
            check_rows(index, space, images, client)


@pytest.mark.parametrize("kind", ["lance", "faiss"])
def test_a_table_named_for_another_space_is_neither_read_nor_written(kind, tmp_path):
    index, row = open_index(f"{kind}:{tmp_path}"), np.ones((1, 4), np.float32)
    index.add("a", ["1"], row)
    (table,) = tmp_path.glob("space_a*")
    table.rename(table.with_name(table.name.replace("space_a", "space_b")))
    index = open_index(f"{kind}:{tmp_path}")
    for use in (
        lambda: index.append("b", ["2"], row),
        lambda: index.nearest("b", row[0], 1),
        lambda: index.names("b"),
    ):
        with pytest.raises(WrongSpaceError, match="does not hold vectors of b"):
            use()
