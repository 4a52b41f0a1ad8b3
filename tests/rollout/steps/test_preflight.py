"""Checks of a version before any replica loads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from featurewire_rollout import PreflightError
from featurewire_rollout.steps.preflight import check_files


def copy_of(version: Path, to: Path) -> Path:
    """Copy a version with links; tests replace single files."""
    shutil.copytree(
        version, to, copy_function=lambda source, target: Path(target).hardlink_to(source)
    )
    return to


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.unlink()
    path.write_bytes(content)


def test_a_version_of_the_exporter_is_whole_and_equal_to_its_manifest(
    small_published: Path,
) -> None:
    manifest, said = check_files(small_published / "1")
    assert said == "files: equal to the digests in the manifest"
    assert manifest.vector_space


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("saved_model.pb", -100_000),  # among the weights, without changing a length
        ("assets.extra/tf_serving_warmup_requests", 1000),
        ("batching_params.pbtxt", 3),
    ],
)
def test_a_bit_that_flipped_on_the_way_is_noticed(
    small_published: Path, tmp_path: Path, name: str, at: int
) -> None:
    version = copy_of(small_published / "1", tmp_path / "1")
    flip(version / name, at)
    with pytest.raises(PreflightError, match=rf"is incomplete: {name} does not match"):
        check_files(version)
    (version / name).unlink()
    with pytest.raises(PreflightError, match=name):
        check_files(version)


def test_a_manifest_without_digests_is_said_to_be_unchecked(
    tiny_model: Path, tmp_path: Path
) -> None:
    assert "content not checked, there is no manifest" in check_files(tiny_model / "1")[1]
    version = tmp_path / "1"
    shutil.copytree(tiny_model / "1", version)
    (version / "assets.extra").mkdir()
    manifest = {"vector_space": "x"}
    (version / "assets.extra" / "featurewire.json").write_text(json.dumps(manifest))
    assert "content not checked, the manifest has no digests" in check_files(version)[1]


def test_no_graph_or_half_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="is incomplete: saved_model"):
        check_files(tmp_path)
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "featurewire.json").write_text('{"files": {')
    with pytest.raises(PreflightError, match="is incomplete: its manifest is not JSON"):
        check_files(tmp_path)
