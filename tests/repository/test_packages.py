"""Metadata of the published distributions, and the packages in requirements.txt."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.txt").read_text()
DISTRIBUTIONS = ("client", "exporter", "rollout", "server")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(text: str) -> dict[str, str]:
    """Names and versions."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def required(folder: str) -> Iterator[Requirement]:
    """Requirements of a distribution from the package index, including extras."""
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    for line in [*project["dependencies"], *(each for extra in extras for each in extra)]:
        requirement = Requirement(line)
        if not requirement.name.startswith("featurewire"):
            yield requirement


def locked(*names: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "locked.py"), *names]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_the_pins_are_versions_that_a_distribution_allows(folder):
    versions = pinned(LOCK)
    for requirement in required(folder):
        assert requirement.specifier.contains(versions[normal(requirement.name)]), requirement


def test_every_pin_has_hashes_and_no_address():
    for entry in re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry, entry
    assert "://" not in LOCK


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_a_part_of_the_pins_holds_what_a_distribution_needs(folder):
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    direct = {normal(Requirement(each).name) for each in project["dependencies"]}
    part = pinned(locked(folder))
    assert direct - {"featurewire"} <= part.keys()
    assert part.items() <= pinned(LOCK).items()


def test_the_clients_part_holds_no_tensorflow():
    assert "tensorflow" not in pinned(locked("client", "rollout", "kubernetes"))


def test_a_name_that_is_not_locked_is_an_error():
    command = [sys.executable, str(ROOT / "scripts" / "locked.py"), "nonesuch"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "locked: requirements.txt has no nonesuch\n")


def test_the_distributions_share_version_licence_and_links():
    command = [sys.executable, str(ROOT / "scripts" / "metadata.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_a_dependency_that_broke_before_has_an_upper_bound(folder):
    bounded = {"grpcio", "grpcio-health-checking", "grpcio-reflection", "protobuf", "uvicorn"}
    for requirement in required(folder):
        if requirement.name in bounded:
            assert "<" in str(requirement.specifier), requirement
