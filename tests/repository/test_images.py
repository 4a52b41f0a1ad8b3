"""The Dockerfile and docker-bake.json, as far as they need no engine."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BAKE = json.loads((ROOT / "docker-bake.json").read_text())
IMAGES = BAKE["group"]["default"]["targets"]


def stages() -> dict[str, str]:
    """Name and instructions of each stage of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text()
    return dict(
        re.findall(r"^FROM \S+ AS ([\w-]+)\n(.*?)(?=^FROM|\Z)", text, re.DOTALL | re.MULTILINE)
    )


def test_the_bake_file_builds_every_image():
    started = [name for name, lines in stages().items() if "ENTRYPOINT" in lines]
    assert sorted(IMAGES) == sorted(started)
    for name in IMAGES:
        target = BAKE["target"][name]
        assert (target["target"], target["inherits"]) == (name, ["common"])


def test_every_image_runs_as_a_user_other_than_root():
    for name in IMAGES:
        users = re.findall(r"^USER (\S+)$", stages()[name], re.MULTILINE)
        assert users == ["1000:1000"], name


def test_images_have_two_platforms_labels_and_an_sbom():
    common = BAKE["target"]["common"]
    assert common["platforms"] == ["linux/amd64", "linux/arm64"]
    assert "type=sbom" in common["attest"]
    for name in IMAGES:
        labels = common["labels"] | BAKE["target"][name]["labels"]
        found = {label.removeprefix("org.opencontainers.image.") for label in labels}
        assert found == {"title", "description", "licenses", "version", "revision", "source"}


def test_every_variable_of_the_bake_file_is_used():
    used = set(re.findall(r"\$\{(\w+)\}", json.dumps(BAKE["target"])))
    assert used == BAKE["variable"].keys()


def test_packages_from_the_index_are_installed_by_their_hashes():
    """Except the sample's packages, whose requirements file does not list hashes."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    installs = re.findall(r"image-pip install (.*?)(?=&&|\n|$)", text)
    assert installs
    for arguments in installs:
        assert re.search(r"--require-hashes|--no-index|-r /search\.txt", arguments), arguments
