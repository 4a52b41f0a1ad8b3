"""The commands with `featurewire serve`: the whole product, with a tiny model."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import featurewire
from tests.cli.conftest import FEATUREWIRE
from tests.cli.test_resume import wait_for_rows
from tests.support import warm
from tests.support.models import expected_vector
from tests.support.process import ServerProcess, serving
from tests.support.shared import SharedServer


@pytest.fixture
def photos_folder(tmp_path: Path, photos: list[Path]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in photos:
        (folder / photo.name).symlink_to(photo)
    return folder


def options(server: ServerProcess | SharedServer) -> list[str]:
    return ["--server", server.target, "--model", "tiny"]


def test_real_photos_become_vectors(command, tiny_server, photos_folder, tmp_path):
    ready = command("status", *options(tiny_server), "--wait", "60", "--json")
    assert ready.returncode == 0, ready.stderr
    (photos_folder / "notes.jpg").write_text("no photo")
    shown = command("embed", "photos", "--output", "out.npy", *options(tiny_server))
    assert shown.returncode == 1
    assert "photos/notes.jpg: unsupported" in shown.stderr
    index = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    array = np.load(tmp_path / "out.npy")
    assert len(index) == len(array) == len(list(photos_folder.iterdir())) - 1
    for entry, row in zip(index, array, strict=True):
        image = (tmp_path / entry["path"]).read_bytes()
        assert np.array_equal(row, expected_vector(image, version=entry["version"]))
        assert (entry["version"], entry["vector_space"]) == (2, "tiny-2")


@pytest.mark.usefixtures("photos_folder")
def test_resume_of_another_vector_space_is_refused(command, tiny_server):
    common = options(tiny_server)
    first = command("embed", "photos", "--output", "out.jsonl", "--version", "1", *common)
    assert first.returncode == 0, first.stderr
    second = command("embed", "photos", "--output", "out.jsonl", "--resume", *common)
    assert second.returncode == 1
    assert "version 2 of tiny (vector space tiny-2)" in second.stderr
    assert "ask for --version 1" in second.stderr


@pytest.mark.usefixtures("photos_folder")
def test_the_vector_space_that_is_asked_for_is_refused_or_recorded(command, tiny_server, tmp_path):
    common = ["--output", "out.jsonl", "--vector-space", "tiny-1"]
    refused = command("embed", "photos", *common, *options(tiny_server))
    assert refused.returncode == 1
    assert "version 2 has the vector space 'tiny-2', not the requested 'tiny-1'" in refused.stderr
    assert not (tmp_path / "out.jsonl").exists()
    done = command("embed", "photos", *common, *options(tiny_server), "--version", "1")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {row["vector_space"] for row in rows} == {"tiny-1"}


def test_kill_9_of_the_server_in_mid_run_costs_no_image(tiny_model, tmp_path):
    images = 2000
    (tmp_path / "photos").mkdir()
    for number in range(images):
        image = b"\xff\xd8\xff" + number.to_bytes(4, "little")
        (tmp_path / "photos" / f"{number:04}.jpg").write_bytes(image)
    with serving(tiny_model, log=tmp_path / "server.log") as server:
        with featurewire.Client(server.target, model="tiny") as client:
            client.wait_until_ready(60)
        process = warm.start(
            [FEATUREWIRE, "embed", "photos", "--output", "out.npy", *options(server)],
            imports=warm.CLIENT,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_rows(tmp_path / "out.npy.partial", 100, process)
        server.kill()
        server.start()
        errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    index = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [entry["path"] for entry in index] == [f"photos/{n:04}.jpg" for n in range(images)]
    array = np.load(tmp_path / "out.npy")
    assert len(array) == images
    last = (tmp_path / index[-1]["path"]).read_bytes()
    assert np.array_equal(array[-1], expected_vector(last, version=2))
