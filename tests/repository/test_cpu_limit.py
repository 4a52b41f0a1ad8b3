"""Fast tests fail if they use too much CPU time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import subprocess, sys, time
import pytest

CODE = "import time\\nwhile time.process_time() < 0.2: pass"

def burn():
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass

@pytest.fixture(scope="module")
def shared():
    burn()

@pytest.fixture(scope="class")
def shared_end():
    yield
    burn()

@pytest.fixture
def own():
    burn()

@pytest.fixture
def own_end():
    yield
    burn()

def test_burns_itself(): burn()
def test_has_a_child_that_burns(): subprocess.run([sys.executable, "-c", CODE])
def test_has_a_fixture_that_burns(own): pass
def test_has_a_fixture_that_burns_at_its_end(own_end): pass

def test_waits(): time.sleep(0.3)
@pytest.mark.slow
def test_is_slow(): burn()
def test_has_a_shared_fixture_that_burns(shared): pass
def test_has_a_shared_fixture_that_burns_at_its_end(shared_end): pass
"""

TOO_MUCH = {
    "test_burns_itself",
    "test_has_a_child_that_burns",
    "test_has_a_fixture_that_burns",
    "test_has_a_fixture_that_burns_at_its_end",
}


def test_only_its_own_processor_time_makes_a_fast_test_fail(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    settings = tmp_path / "pytest.ini"
    settings.write_text("[pytest]\nmarkers = slow: long\nfast_test_cpu_seconds = 0.15\n")
    command = [sys.executable, "-m", "pytest", "-rE", "-p", "tests.support.cpu_limit"]
    command += ["-p", "no:cacheprovider", "-c", str(settings), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    errors = set(re.findall(r"^ERROR .*::(\w+)", done.stdout, re.MULTILINE))
    assert errors == TOO_MUCH, done.stdout
    assert "8 passed, 4 errors" in done.stdout
    assert "s of CPU time; tests without @pytest.mark.slow may take 0.15 s" in done.stdout
