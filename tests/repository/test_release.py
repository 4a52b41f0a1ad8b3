"""scripts/release in a clone, with a `make` that only records; and the workflows of a hosted CI."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v[\d.]+")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with a changelog for 0.2.0 and real links instead of placeholders."""
    folder = tmp_path / "clone"
    for name in ("client", "exporter", "rollout", "server"):
        (folder / name).mkdir(parents=True)
        for file in ("pyproject.toml", "LICENSE"):
            (folder / name / file).write_bytes((ROOT / name / file).read_bytes())
    (folder / "scripts").mkdir()
    for name in ("scripts/release", "scripts/metadata.py", "LICENSE"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "scripts" / "release").chmod(0o755)
    project = (ROOT / "pyproject.toml").read_text().replace("example.invalid", "example.com")
    (folder / "pyproject.toml").write_text(project)
    (folder / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0 - unreleased\n")
    make = tmp_path / "make"
    make.write_text(
        f'#!/bin/sh\necho "$@" >> "{tmp_path}/made"\n'
        f'[ "$1" != metadata ] || "{sys.executable}" scripts/metadata.py\n'
    )
    make.chmod(0o755)
    git(tmp_path, "init", "--quiet", str(folder))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "tests: start")
    return folder


def release(clone: Path, version: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "MAKE": str(clone.parent / "make"),
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.invalid",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.invalid",
    }
    command = [str(clone / "scripts" / "release"), version]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_release_sets_every_version_and_tags_the_commit(clone):
    done = release(clone, "0.2.0")
    assert done.returncode == 0, done.stderr
    for name in ("client", "exporter", "rollout", "server"):
        text = (clone / name / "pyproject.toml").read_text()
        assert tomllib.loads(text)["project"]["version"] == "0.2.0"
        assert set(re.findall(r'"featurewire==([^"]*)"', text)) <= {"0.2.0"}
    assert re.search(r"^## 0\.2\.0 - \d{4}-\d\d-\d\d$", (clone / "CHANGELOG.md").read_text(), re.M)
    assert git(clone, "describe", "--exact-match").strip() == "v0.2.0"
    assert git(clone, "log", "-1", "--format=%s").strip() == "release: 0.2.0"
    assert git(clone, "status", "--porcelain") == ""
    made = (clone.parent / "made").read_text().splitlines()
    assert made == ["metadata", "lint", "test-all", "test-dist sbom"]


@pytest.mark.parametrize(
    ("version", "change", "said"),
    [
        ("next", None, "usage: scripts/release VERSION"),
        ("0.3.0", None, "no heading '## 0.3.0 - unreleased'"),
        ("0.2.0", ("CHANGELOG.md", "more"), "uncommitted changes"),
    ],
)
def test_a_release_that_is_not_ready_changes_nothing(clone, version, change, said):
    if change:
        with (clone / change[0]).open("a") as file:
            file.write(change[1])
    before = git(clone, "status", "--porcelain")
    done = release(clone, version)
    assert (done.returncode, said in done.stderr) == (1, True)
    assert git(clone, "status", "--porcelain") == before
    assert not (clone.parent / "made").exists()


def test_a_release_refuses_placeholders(clone):
    (clone / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    git(clone, "commit", "--quiet", "--all", "--message", "tests: placeholders")
    assert "placeholders" in release(clone, "0.2.0").stderr


@pytest.mark.parametrize("name", ["test", "release"])
def test_workflows_pin_every_action_and_call_targets_that_exist(name):
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text()
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    used = re.findall(r"uses: .*", text)
    assert used
    assert all(PIN.fullmatch(each) for each in used)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in re.findall(r"run: make (.*)", text):
        assert {each for each in line.split() if "=" not in each} <= targets
