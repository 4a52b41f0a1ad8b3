"""The example for Spark and Ray, in plain processes: each makes a client and keeps it."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from samples.one_client_per_process import client_of_this_process, embed_part
from tests.cli.conftest import jpeg
from tests.cli.fake_serving import vector_of


def work(part: list[str], target: str) -> tuple[int, int, list]:
    """Process one partition like an engine's worker; returns process id, clients made and rows."""
    rows = list(embed_part(part, target, "tiny", 1))
    return os.getpid(), client_of_this_process.cache_info().misses, rows


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_every_process_embeds_its_parts_with_one_client(images, server, method):
    (images / "a" / "02.jpg").write_bytes(b"no image")
    paths = sorted(str(path) for path in images.rglob("*.jpg"))
    parts = [(paths[start : start + 3], server.target) for start in range(0, 12, 3)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        done = pool.starmap_async(work, parts, chunksize=1).get(60)
    rows = [row for _, _, part in done for row in part]
    assert [path for path, _, _ in rows] == paths
    for number, (_, vector, error) in enumerate(rows):
        if number == 2:
            assert (vector, error) == (None, "unsupported")
        else:
            assert (vector, error) == (vector_of(jpeg(number)).tolist(), None)
    assert {made for _, made, _ in done} == {1}
