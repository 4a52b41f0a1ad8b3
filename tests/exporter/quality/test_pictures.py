"""Pictures in a folder, and views of them."""

from __future__ import annotations

import pytest

from featurewire_exporter.errors import ExportError
from featurewire_exporter.quality.pictures import find_pictures, views


def test_views_are_the_picture_and_the_same_crops_each_time(photos_jpeg):
    first, again = list(views(photos_jpeg[0], 4)), list(views(photos_jpeg[0], 4))
    assert first == again
    assert first[0] == photos_jpeg[0]
    assert len(set(first)) == 4
    assert list(views(b"no picture", 4)) == []


def test_each_content_counts_once(tmp_path, photos_jpeg):
    for name in ("a.jpg", "b.JPG", "below/c.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photos_jpeg[0])
    (tmp_path / "notes.txt").write_text("no picture")
    assert list(find_pictures(tmp_path, option="--images")) == [photos_jpeg[0]]


def test_a_sample_of_many_pictures_is_drawn_and_read_lazily(tmp_path):
    for number in range(30):
        (tmp_path / f"{number:02}.jpg").write_bytes(b"%d" % (number // 2))
    drawn = find_pictures(tmp_path, 10, option="--images")
    assert len(set(drawn)) == len(drawn) == 10
    assert list(find_pictures(tmp_path, 10, option="--images")) == list(drawn)
    assert list(drawn[:2]) == [drawn[0], drawn[1]]
    assert len(find_pictures(tmp_path, option="--images")) == 15
    for path in tmp_path.iterdir():
        path.write_bytes(b"another")
    with pytest.raises(ExportError, match="changed during the export"):
        drawn[0]
