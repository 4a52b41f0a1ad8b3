"""Check that commit subjects read `area: what changes`, in at most 72 characters.

    python scripts/commit_subjects.py                    # the newest commits of this repository
    python scripts/commit_subjects.py --message FILE     # a message that is being written

Checked are the commits since the last tag, at most twenty. Commits made before `RULE_SINCE` are
exempt, because the rule did not exist; merges are exempt, because tools write their subjects. A
shallow clone has fewer commits, and a source archive has none: then there is less to check.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

RULE_SINCE = datetime.fromisoformat("2026-12-01T01:00:00+00:00")
"""The rule was introduced then. A date, because a shallow clone may lack the commit."""

MAX_COMMITS = 20

MAX_CHARACTERS = 72

SUBJECT = re.compile(r"[a-z0-9_./, -]+: \S.*")


def fault(subject: str) -> str:
    """Why a subject is refused; empty if it is fine."""
    if not SUBJECT.fullmatch(subject):
        return "it does not read `area: what changes`"
    if len(subject) > MAX_CHARACTERS:
        return f"it has {len(subject)} characters, {len(subject) - MAX_CHARACTERS} too many"
    return ""


def subjects(repository: Path) -> list[tuple[str, str]]:
    """Short hashes and subjects of the commits to check, newest first.

    Raises `subprocess.CalledProcessError` if git cannot read the repository.
    """
    tag = _git(repository, "tag", "--merged", "HEAD", "--sort=-creatordate").split("\n")[0]
    log = _git(
        repository,
        "log",
        "--no-merges",
        f"--max-count={MAX_COMMITS}",
        "--format=%h%x09%cI%x09%s",
        f"{tag}..HEAD" if tag else "HEAD",
    )
    rows = [line.split("\t", 2) for line in log.splitlines()]
    return [
        (commit, subject)
        for commit, date, subject in rows
        if datetime.fromisoformat(date) >= RULE_SINCE
    ]


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _check_history(repository: Path) -> int:
    if not (repository / ".git").exists() or shutil.which("git") is None:
        print("commit subjects: not checked, because there is no git history here")
        return 0
    try:
        found = subjects(repository)
    except subprocess.CalledProcessError as error:
        print(f"commit subjects: git failed: {error.stderr.strip()}", file=sys.stderr)
        return 1
    faults = [(commit, subject, why) for commit, subject in found if (why := fault(subject))]
    for commit, subject, why in faults:
        print(f"commit {commit} {subject!r}: {why}", file=sys.stderr)
    if not faults:
        print(f"commit subjects: {len(found)} checked")
    return 1 if faults else 0


def _check_message(path: Path) -> int:
    subject = (path.read_text(encoding="utf-8").splitlines() or [""])[0]
    why = "" if subject.startswith(("Merge ", "fixup! ", "squash! ")) else fault(subject)
    if why:
        print(f"{subject!r}: {why}", file=sys.stderr)
    return 1 if why else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Check commit subjects.")
    parser.add_argument("repository", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--message", metavar="FILE", type=Path, help="check this message instead")
    options = parser.parse_args()
    if options.message is not None:
        return _check_message(options.message)
    return _check_history(options.repository)


if __name__ == "__main__":
    sys.exit(main())
