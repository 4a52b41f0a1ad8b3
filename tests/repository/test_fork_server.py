"""Forked programs behave like programs started with `python`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
BARE = warm.Imports("bare", ())


def start(*arguments: str, **options):
    return warm.start(arguments, imports=BARE, **options)


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "text": True, "timeout": 60} | options
    return warm.run(arguments, imports=BARE, **options)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os._exit(4)", 4),
        ("raise ValueError('oops')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("raise KeyboardInterrupt", -2),
    ],
)
def test_a_forked_program_ends_with_the_status_of_python(code, status):
    forked = run("-c", code)
    cold = run("-c", code, new_interpreter=True)
    assert forked.returncode == cold.returncode == status
    assert forked.stdout == cold.stdout
    assert forked.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]


def test_a_forked_program_has_its_own_folder_and_variables(tmp_path):
    (tmp_path / "beside.py").write_text("import os; print(os.getcwd(), os.environ)")
    forked = run("-m", "beside", cwd=tmp_path, env={"ONLY": "this"})
    assert forked.stdout == f"{tmp_path} environ({{'ONLY': 'this'}})\n"


def test_a_forked_program_imports_what_pythonpath_names(tmp_path):
    (tmp_path / "named.py").write_text("print('found')")
    forked = run("-c", "import named", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert forked.stdout == "found\n", forked.stderr


def test_a_forked_file_gets_its_arguments_and_its_input(tmp_path):
    file = tmp_path / "file.py"
    file.write_text("import sys; print(sys.argv[1:], __name__, sys.stdin.read())")
    forked = run(str(file), "a", "b c", input="typed")
    assert forked.stdout == "['a', 'b c'] __main__ typed\n", forked.stderr


def test_both_outputs_may_go_to_one_file(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
        start("-c", code, stdout=log, stderr=subprocess.STDOUT).wait(60)
    assert (tmp_path / "log").read_text() == "out\nerr\n"


def test_a_forked_program_can_be_stopped_by_any_signal():
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        process = start(
            "-c", "import time; print('up', flush=True); time.sleep(600)", stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout.readline() == b"up\n"
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.send_signal(number)
            assert process.wait(60) == -number
            process.send_signal(number)  # no effect after the end


def test_a_new_session_is_made_where_it_is_asked_for():
    code = "import os; print(os.getsid(0) == os.getpid())"
    assert run("-c", code).stdout == "False\n"
    assert run("-c", code, start_new_session=True).stdout == "True\n"


def test_processor_time_of_forked_programs_is_counted():
    before = warm.cpu_seconds()
    run("-c", "import time\nwhile time.process_time() < 0.2: pass")
    assert warm.cpu_seconds() - before >= 0.2


USER = """
import sys, time
from pathlib import Path
from tests.support import warm
warm.use_fork_servers(Path(sys.argv[1]))
code = "import time; time.sleep(600)"
child = warm.start(["-c", code], imports=warm.Imports("bare", ()), whole_run="whole" in sys.argv)
print(child.pid, flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def user(folder: str, *arguments: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """A process of a run, and a program that it has started."""
    command = [sys.executable, "-c", USER, folder, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_programs_end_with_the_process_that_started_them():
    # A socket's path must be short.
    with tempfile.TemporaryDirectory() as folder:
        with user(folder) as (process, pid):
            assert is_alive(pid)
            process.kill()
        wait_until(lambda: not is_alive(pid))
        wait_until(lambda: not any(path.is_socket() for path in Path(folder).iterdir()))


def test_a_program_of_the_whole_run_ends_with_its_last_process():
    with tempfile.TemporaryDirectory() as folder, user(folder) as (_, own):
        with user(folder, "whole") as (first, pid):
            first.kill()
            first.wait()
            with user(folder) as (_, later):  # the server has seen that the first one is gone
                assert is_alive(later)
                assert is_alive(pid)
        assert is_alive(own)
        assert is_alive(pid)
    wait_until(lambda: not is_alive(pid) and not is_alive(own))


def test_no_program_outlives_the_server_that_has_forked_it():
    with tempfile.TemporaryDirectory() as folder, user(folder, "whole") as (_, pid):
        status = Path(f"/proc/{pid}/status").read_text()
        server = int(re.search(r"^PPid:\s+(\d+)", status, re.MULTILINE)[1])
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))
