"""The visual search through its HTTP API and its commands."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

WHY = "needs the sample's own packages: run `make test-samples`"
pytest.importorskip("fastapi", reason=WHY)
pytest.importorskip("lancedb", reason=WHY)

from tests.samples import searching  # noqa: E402
from tests.samples.searching import (  # noqa: E402
    TIMEOUT,
    page,
    rows,
    run,
    status,
    wait_until_indexed,
)
from tests.support.process import free_port  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

LITE0 = ("--model", "lite0")
TINY = ("--model", "tiny", "--label", "stable")


@pytest.fixture(scope="module")
def indexed(tiles, server, tmp_path_factory):
    """The service after indexing all tiles, and the index's folder."""
    index = tmp_path_factory.mktemp("index")
    with page(tiles, index, server.target, *LITE0) as client:
        wait_until_indexed(client, 60)
        yield client, index


def test_every_photo_is_in_the_index_once_with_its_space_and_version(indexed):
    client, index = indexed
    found = rows(index)
    answer = status(client)
    assert len({row["path"] for row in found}) == len(found) == 61
    assert [row["path"] for row in found if row["reason"]] == ["broken.jpg"]
    assert answer["progress"]["failed"] == 1
    spaces = {row["vector_space"] for row in found}
    assert spaces == {answer["server"]["vector_space"]} == {answer["index"]["vector_space"]}
    assert {row["version"] for row in found if row["reason"] is None} == {1}


def test_a_photo_and_a_part_of_it_find_the_photo(indexed, tiles, photos):
    client, _ = indexed
    dropped = (tiles / "0030.jpg").read_bytes()
    answer = client.post("/api/search?count=3", content=dropped).raise_for_status().json()
    first, second, _ = answer["neighbours"]
    assert first["path"] == "0030.jpg"
    assert first["similarity"] == pytest.approx(1.0, abs=1e-3)
    assert second["similarity"] < first["similarity"]
    # Tiles of photo k have the numbers k, k + 6, k + 12, …; the cat's are nearest to the cat.
    cat = [photo.stem for photo in photos].index("cat")
    whole = client.post("/api/search?count=3", content=photos[cat].read_bytes()).json()
    numbers = [int(each["path"][-8:-4]) for each in whole["neighbours"]]
    assert {number % len(photos) for number in numbers} == {cat}


def test_a_clicked_photo_has_neighbours_but_not_itself(indexed):
    client, _ = indexed
    path = "more/it's 0003.jpg"
    found = client.get("/api/neighbours", params={"path": path, "count": 5}).json()
    assert len(found) == 5
    assert path not in [each["path"] for each in found]
    similarities = [each["similarity"] for each in found]
    assert similarities == sorted(similarities, reverse=True)
    thumbnail = client.get(f"/thumbnails/{quote(path)}")
    assert thumbnail.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("image", "code", "text"),
    [(b"", 422, "empty"), (b"text", 422, "unsupported"), (b"\xff\xd8\xff\xe0cut", 422, "corrupt")],
)
def test_a_bad_image_is_named(indexed, image, code, text):
    client, _ = indexed
    answer = client.post("/api/search", content=image)
    assert answer.status_code == code
    assert text in answer.json()["detail"]


def test_only_photos_of_the_index_are_served_and_only_to_known_hosts(indexed, tiles):
    client, _ = indexed
    (tiles.parent / "secret.jpg").write_bytes(b"secret")
    for path in ("../secret.jpg", "broken.jpg", "absent.jpg", "%2e%2e/secret.jpg"):
        assert client.get(f"/photos/{quote(path)}").status_code == 404
    assert client.get("/api/status", headers={"Host": "elsewhere.example"}).status_code == 400
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy


def test_a_killed_run_resumes_and_embeds_nothing_twice(tiles, server, tmp_path):
    where = ("--photos", tiles, "--index", tmp_path / "index", "--server", server.target, *LITE0)
    process = searching.start("index", *where)
    current = tmp_path / "index" / "current.json"
    wait_until(lambda: current.exists() and len(rows(tmp_path / "index")) > 0, TIMEOUT)
    process.kill()
    process.wait(60)
    before = {row["path"] for row in rows(tmp_path / "index") if row["reason"] is None}
    code, output = run("index", *where)
    assert code == 0, output
    after = [row["path"] for row in rows(tmp_path / "index")]
    assert len(after) == len(set(after)) == 61
    assert "60 photos in" in output
    assert f"{60 - len(before)} of them new" in output
    assert "0 of them new; 0 failed" in run("index", *where)[1]


def test_changed_photos_are_embedded_again_and_deleted_ones_forgotten(
    some_photos, server, tmp_path
):
    where = ("--photos", some_photos, "--index", tmp_path / "index", "--server", server.target)
    assert run("index", *where, *TINY)[0] == 0
    (some_photos / "cat.jpg").write_bytes((some_photos / "coffee.jpg").read_bytes())
    (some_photos / "rocket.jpg").unlink()
    assert "5 photos in tiny-1, 1 of them new" in run("index", *where, *TINY)[1]
    vectors = {row["path"]: row["vector"] for row in rows(tmp_path / "index")}
    assert vectors["cat.jpg"] == vectors["coffee.jpg"]


def test_spaces_are_not_mixed_between_a_rollout_and_the_table_switch(some_photos, server, tmp_path):
    index = tmp_path / "index"
    where = ("--photos", some_photos, "--index", index, "--server", server.target)
    cat = (some_photos / "cat.jpg").read_bytes()
    with page(some_photos, index, server.target, *TINY) as client:
        wait_until_indexed(client, 6)
        try:
            server.label(stable=2)
            refused = wait_until(
                lambda: (
                    (answer := client.post("/api/search", content=cat)).status_code == 409
                    and answer
                ),
                TIMEOUT,
            )
            assert "python -m visual_search index" in refused.json()["detail"]
            assert "switch" in status(client)["notice"]
            assert client.get("/api/neighbours?path=cat.jpg").status_code == 200

            code, output = run("index", *where, *TINY)
            assert code == 0, output
            assert "Searches still read tiny-1" in output
            assert client.post("/api/search", content=cat).status_code == 409
            code, output = run("switch", "--index", index, "--photos", some_photos)
            assert code == 0, output
            answer = client.post("/api/search", content=cat).raise_for_status().json()
            assert answer["version"] == 2
            assert len(answer["neighbours"]) == 6
            assert status(client)["notice"] is None
            assert {row["vector_space"] for row in rows(index)} == {"tiny-2"}
        finally:
            server.label(stable=1)


def test_searches_use_the_old_table_after_a_rollout_with_a_bridge(some_photos, server, tmp_path):
    cat = (some_photos / "cat.jpg").read_bytes()
    with page(some_photos, tmp_path / "index", server.target, *TINY) as client:
        wait_until_indexed(client, 6)
        try:
            server.label(stable=3)

            def answered() -> dict:
                answer = client.post("/api/search", content=cat).raise_for_status().json()
                return answer if answer["version"] == 3 else {}

            assert len(wait_until(answered, TIMEOUT)["neighbours"]) == 6
            assert "searches use that version's bridge" in status(client)["notice"]
        finally:
            server.label(stable=1)


def test_a_table_that_lacks_photos_is_not_switched_to(some_photos, server, tmp_path):
    where = ("--photos", some_photos, "--index", tmp_path, "--server", server.target)
    tiny = ("--model", "tiny", "--label")
    assert run("index", *where, *tiny, "stable")[0] == 0
    assert run("index", *where, *tiny, "canary")[0] == 0
    (some_photos / "new.jpg").write_bytes((some_photos / "cat.jpg").read_bytes())
    code, output = run("switch", "--index", tmp_path, "--photos", some_photos)
    assert code == 1
    assert "lacks 1 photos" in output


def test_with_the_server_down_clicks_work_and_drops_say_so(some_photos, server, tmp_path):
    where = ("--photos", some_photos, "--index", tmp_path, "--server", server.target)
    assert run("index", *where, *TINY)[0] == 0
    with page(some_photos, tmp_path, f"127.0.0.1:{free_port()}", *TINY) as client:
        assert len(client.get("/api/neighbours?path=cat.jpg").json()) == 5
        answer = client.post("/api/search", content=(some_photos / "cat.jpg").read_bytes())
        assert answer.status_code == 503
        assert "127.0.0.1" in answer.json()["detail"]
        assert "does not answer" in status(client)["notice"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("index", "--photos", "/absent", "--index", "i"), "/absent is not a folder"),
        (("tables", "--index", "/absent"), "has no index"),
    ],
)
def test_a_mistake_is_one_line(arguments, text):
    code, output = run(*arguments)
    assert code == 1
    assert text in output
    assert "Traceback" not in output


def test_a_second_writer_is_told(some_photos, server, tmp_path):
    import fcntl

    index = Path(tmp_path / "index")
    index.mkdir()
    with (index / "writing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, output = run(
            *("index", "--photos", some_photos, "--index", index, "--server", server.target), *TINY
        )
    assert code == 1
    assert "another process is writing" in output
