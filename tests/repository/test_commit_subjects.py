"""The check of commit subjects, on real repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "commit_subjects.py"

GOOD = "server: refuse a second model of the same name"
LONG = "server: " + "refuse " * 10
OLD = "2026-11-30T12:00:00+00:00"
NEW = "2026-12-02T12:00:00+00:00"

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git_in(folder: Path, *arguments: str, date: str = NEW) -> None:
    people = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", "a"), ("EMAIL", "a@example.org"), ("DATE", date))
    }
    clean = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", str(folder), *arguments]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **clean, **people})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git_in(folder, "init", "--quiet")
    return folder


def commit(repository: Path, subject: str, date: str = NEW) -> None:
    git_in(repository, "commit", "--quiet", "--allow-empty", "-m", subject, date=date)


def check(*arguments: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = os.environ if path is None else {**os.environ, "PATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_good_subjects_pass(repository):
    commit(repository, GOOD)
    commit(repository, "tests, docs: follow")
    done = check(repository)
    assert (done.returncode, done.stdout) == (0, "commit subjects: 2 checked\n")


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        ("Refuse a second model", "does not read `area: what changes`"),
        ("server:refuse a second model", "does not read `area: what changes`"),
        (LONG, "it has 77 characters, 5 too many"),
    ],
)
def test_a_bad_subject_is_named_with_its_reason(repository, subject, why):
    commit(repository, subject)
    commit(repository, GOOD)
    done = check(repository)
    assert done.returncode == 1
    assert subject.strip() in done.stderr
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


def test_commits_from_before_the_rule_are_exempt(repository):
    commit(repository, "An old subject", OLD)
    commit(repository, GOOD)
    assert check(repository).stdout == "commit subjects: 1 checked\n"


def test_only_commits_since_the_last_tag_are_checked(repository):
    commit(repository, "Released with a bad subject")
    git_in(repository, "tag", "v1")
    commit(repository, GOOD)
    assert check(repository).stdout == "commit subjects: 1 checked\n"


def test_at_most_twenty_commits_are_checked(repository):
    commit(repository, "A bad subject, twenty commits ago")
    for number in range(20):
        commit(repository, f"area: change number {number}")
    assert check(repository).stdout == "commit subjects: 20 checked\n"


def test_a_shallow_clone_checks_the_commits_it_has(repository, tmp_path):
    commit(repository, "A bad subject that the clone lacks")
    commit(repository, GOOD)
    shallow = tmp_path / "shallow"
    git_in(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", str(shallow))
    assert check(shallow).stdout == "commit subjects: 1 checked\n"


def test_without_git_or_its_history_nothing_is_checked(repository, tmp_path):
    commit(repository, "A bad subject")
    for done in (check(tmp_path), check(repository, path=str(tmp_path))):
        assert done.returncode == 0
        assert "no git history here" in done.stdout


def test_a_repository_that_git_cannot_read_is_an_error(tmp_path):
    (tmp_path / ".git").write_text("gitdir: /absent\n")
    done = check(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("commit subjects: git failed: ")


@pytest.mark.parametrize(
    ("message", "status"),
    [(f"{GOOD}\n\nWhy.\n", 0), ("Merge branch 'a'\n", 0), ("Refuse\n", 1), ("", 1)],
)
def test_a_message_that_is_being_written_is_checked(tmp_path, message, status):
    path = tmp_path / "COMMIT_EDITMSG"
    path.write_text(message)
    assert check("--message", path).returncode == status
