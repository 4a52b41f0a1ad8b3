"""The files that a user's paths select."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from featurewire._cli.sources import Listing, entries, exists


def listing(*paths: str | os.PathLike[str], listed=(), known=frozenset()):
    failures: list[tuple[str, str]] = []
    found = Listing(
        [os.fspath(path) for path in paths],
        listed=listed,
        known=known,
        on_failure=lambda *failure: failures.append(failure),
    )
    return list(found), found, failures


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_directory_gives_its_images_and_those_below_in_order(tmp_path):
    names = ["b.JPG", "a.png", "sub/c.jpeg", "sub/deep/d.gif", "z.webp", "y.MPO", "x.apng"]
    touch(*(tmp_path / name for name in names))
    paths, found, failures = listing(tmp_path)
    assert [str(Path(path).relative_to(tmp_path)) for path in paths] == [
        "a.png",
        "b.JPG",
        "x.apng",
        "y.MPO",
        "z.webp",
        "sub/c.jpeg",
        "sub/deep/d.gif",
    ]
    assert (found.total, found.complete, failures) == (7, True, [])


def test_what_a_directory_holds_beside_images_is_counted_by_extension(tmp_path):
    touch(*(tmp_path / name for name in ["a.jpg", "b.txt", "c.TXT", "d.mp4", "LICENSE", "._a.jpg"]))
    touch(tmp_path / ".thumbnails" / "a.jpg")
    paths, found, _ = listing(tmp_path)
    assert [Path(path).name for path in paths] == ["a.jpg"]
    assert found.skipped == {".txt": 2, ".mp4": 1, "no extension": 1, "hidden": 2}


def test_a_file_that_is_named_is_taken_whatever_it_is_called(tmp_path):
    touch(tmp_path / "photo", tmp_path / ".hidden.bin")
    paths, _, _ = listing(tmp_path / "photo", tmp_path / ".hidden.bin")
    assert [Path(path).name for path in paths] == ["photo", ".hidden.bin"]


def test_a_pattern_reaches_into_folders(tmp_path):
    touch(tmp_path / "a" / "1.jpg", tmp_path / "b" / "c" / "2.jpg", tmp_path / "b" / "3.png")
    paths, _, _ = listing(tmp_path / "**" / "*.jpg")
    assert [Path(path).name for path in paths] == ["1.jpg", "2.jpg"]


def test_a_name_with_brackets_that_exists_is_no_pattern(tmp_path):
    touch(tmp_path / "cat[1].jpg", tmp_path / "cat1.jpg")
    paths, _, _ = listing(tmp_path / "cat[1].jpg")
    assert [Path(path).name for path in paths] == ["cat[1].jpg"]


def test_a_path_that_is_reached_twice_is_given_once(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    twice = f"{tmp_path}/./a.jpg"
    paths, found, _ = listing(tmp_path / "a.jpg", tmp_path, twice)
    assert [Path(path).name for path in paths] == ["a.jpg", "b.jpg"]
    assert found.duplicates == 2


def test_a_path_keeps_its_way_up_and_loses_what_says_nothing(tmp_path, monkeypatch):
    touch(tmp_path / "a.jpg", tmp_path / "sub" / "b.jpg")
    monkeypatch.chdir(tmp_path / "sub")
    paths, found, _ = listing("..//a.jpg", "./../a.jpg", ".//b.jpg")
    assert (paths, found.duplicates) == (["../a.jpg", "b.jpg"], 1)


def test_links_that_lead_back_up_end(tmp_path):
    touch(tmp_path / "tree" / "a.jpg")
    (tmp_path / "tree" / "loop").symlink_to(tmp_path / "tree", target_is_directory=True)
    (tmp_path / "tree" / "self").symlink_to("self")
    paths, found, failures = listing(tmp_path / "tree")
    assert [Path(path).name for path in paths] == ["a.jpg"]
    assert (found.skipped, failures) == ({"no extension": 1}, [])


def test_known_paths_are_left_out(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    paths, found, _ = listing(tmp_path, known={str(tmp_path / "a.jpg")})
    assert paths == [str(tmp_path / "b.jpg")]
    assert (found.total, found.already) == (1, 1)


def test_a_missing_path_in_a_list_is_reported_and_the_rest_goes_on(tmp_path):
    touch(tmp_path / "a.jpg")
    paths, _, failures = listing("-", listed=["/no/such.jpg", str(tmp_path / "a.jpg")])
    assert paths == [str(tmp_path / "a.jpg")]
    assert failures == [("/no/such.jpg", "no such file or directory")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every directory")
def test_a_directory_that_may_not_be_read_is_reported(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "closed" / "b.jpg")
    (tmp_path / "closed").chmod(0)
    paths, _, failures = listing(tmp_path)
    (tmp_path / "closed").chmod(0o700)
    assert [Path(path).name for path in paths] == ["a.jpg"]
    assert failures == [(str(tmp_path / "closed"), "permission denied")]


def test_an_error_while_listing_reaches_the_reader(tmp_path):
    def broken():
        yield str(tmp_path)
        raise OSError("the list broke off")

    touch(tmp_path / "a.jpg")
    found = Listing(["-"], listed=broken(), known=frozenset(), on_failure=lambda *_: None)
    walk = iter(found)
    assert next(walk).endswith("a.jpg")
    with pytest.raises(OSError, match="broke off"):
        next(walk)


@pytest.mark.parametrize(
    ("text", "separator", "expected"),
    [
        (b"a.jpg\nb c.jpg\n", b"\n", ["a.jpg", "b c.jpg"]),
        (b"a.jpg\n\n b.jpg", b"\n", ["a.jpg", " b.jpg"]),
        (b"a.jpg\r\n\r\nb.jpg\r\n", b"\n", ["a.jpg", "b.jpg"]),
        (b"a.jpg\r\0", b"\0", ["a.jpg\r"]),
        (b"a\nb.jpg\0c.jpg\0", b"\0", ["a\nb.jpg", "c.jpg"]),
        (b"caf\xe9.jpg\n", b"\n", [os.fsdecode(b"caf\xe9.jpg")]),
        (b"", b"\n", []),
    ],
)
def test_a_list_is_split_at_its_separator_only(text, separator, expected):
    assert list(entries(io.BytesIO(text), separator)) == expected


def test_a_long_list_is_not_torn_at_a_read():
    names = [f"{'x' * 200}/{number}.jpg" for number in range(2000)]
    assert list(entries(io.BytesIO("\n".join(names).encode()), b"\n")) == names


def test_only_what_stands_for_something_exists(tmp_path):
    touch(tmp_path / "a.jpg")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert exists("-")
    assert exists(f"{tmp_path}/a.jpg")
    assert exists(f"{tmp_path}/*.jpg")
    assert exists(f"{tmp_path}/dangling")
    assert not exists(f"{tmp_path}/*.png")
    assert not exists(f"{tmp_path}/b.jpg")
