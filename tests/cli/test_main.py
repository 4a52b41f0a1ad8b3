"""`featurewire` itself: its list of commands, its messages, and bad plug-ins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import numpy
import pytest

from featurewire._cli.main import ELSEWHERE
from tests.cli.conftest import FEATUREWIRE


def plug_in(folder: Path, name: str, source: str) -> dict[str, str]:
    """Install a distribution with the subcommand `name`; returns the environment that finds it."""
    (folder / f"{name}_plug.py").write_text(source)
    info = folder / f"{name}_plug-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[featurewire.commands]\n{name} = {name}_plug:{name}\n")
    return {"PYTHONPATH": str(folder)}


def test_help_lists_the_commands_that_are_installed(command):
    shown = command("--help")
    assert shown.returncode == 0
    assert "  embed     Turn image files into feature vectors" in shown.stdout
    assert "  status    Show the versions of a served model" in shown.stdout


def test_the_clients_own_commands_are_listed_without_a_heavy_import():
    source = (
        "import sys; from featurewire._cli import embed, status, main\n"
        "heavy = {'tensorflow', 'pyarrow', 'grpc', 'numpy', 'google'}\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & heavy))"
    )
    loaded = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]"


def test_without_a_command_the_list_goes_to_standard_error(command):
    shown = command()
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert "commands:" in shown.stderr


def test_version_names_the_distribution(command):
    shown = command("--version")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[0] == "featurewire 0.1.0"


@pytest.mark.parametrize(
    ("typed", "meant"), [("emebd", "embed"), ("stauts", "status"), ("exprt", "export")]
)
def test_a_mistyped_command_suggests_the_one_that_was_meant(command, typed, meant):
    shown = command(typed)
    assert shown.returncode == 2
    assert shown.stderr == f"featurewire: no command named {typed!r}; did you mean {meant}?\n"


def test_an_unknown_option_is_wrong_usage(command):
    shown = command("--frobnicate")
    assert shown.returncode == 2
    assert shown.stderr == "featurewire: unknown option --frobnicate; see featurewire --help\n"


@pytest.fixture
def client_alone(tmp_path: Path) -> dict[str, str]:
    """An environment with only the client's own entry points."""
    root = Path(__file__).resolve().parents[2] / "client"
    info = tmp_path / "alone" / "featurewire-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: featurewire\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "[featurewire.commands]\nembed = featurewire._cli.embed:embed\n"
    )
    third_party = {str(Path(package.__file__).parents[1]) for package in (grpc, numpy)}
    links = tmp_path / "links"
    links.mkdir()
    for folder in third_party:
        for name in ("grpc", "numpy", "numpy.libs", "google"):
            if (Path(folder) / name).exists() and not (links / name).exists():
                (links / name).symlink_to(Path(folder) / name)
    return {"path": os.pathsep.join(map(str, (tmp_path / "alone", root, links)))}


def run_alone(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    source = (
        "import os, sys; sys.path[:0] = os.environ['ALONE'].split(os.pathsep); "
        "from featurewire._cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", source, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"ALONE": environment["path"]},
        timeout=60,
    )


def test_help_says_how_to_get_what_is_not_installed(client_alone):
    shown = run_alone(client_alone, "--help")
    assert shown.returncode == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["export,", "inspect,", "verify", "pip", "install", "./exporter"] in rows
    assert ["serve", "pip", "install", "./server"] in rows
    assert ["rollout", "pip", "install", "./rollout"] in rows


def test_a_command_that_is_not_installed_says_what_to_install(client_alone):
    shown = run_alone(client_alone, "serve", "--port=8500")
    assert shown.returncode == 2
    assert shown.stderr == (
        "featurewire: serve is not installed; run pip install ./server in a checkout of the "
        "featurewire repository\n"
    )


def test_every_install_hint_names_the_folder_that_has_the_command():
    root = Path(__file__).resolve().parents[2]
    for name, folder in ELSEWHERE.items():
        _, _, commands = (
            (root / folder / "pyproject.toml").read_text().partition('"featurewire.commands"]')
        )
        assert f'\n{name} = "' in commands


def test_a_broken_plug_in_does_not_take_the_others_down(command, tmp_path):
    environment = plug_in(tmp_path, "broken", "raise RuntimeError('no such\\nlibrary')\n")
    shown = command("--help", environment=environment)
    assert shown.returncode == 0
    assert "(cannot be loaded: RuntimeError: no such library)" in shown.stdout
    assert "Turn image files into feature vectors" in shown.stdout
    called = command("broken", environment=environment)
    assert called.returncode == 1
    assert called.stderr == (
        "featurewire broken: cannot be loaded (RuntimeError: no such library); "
        "reinstall broken-plug\n"
    )


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ("return 0", 0, ""),
        ("raise SystemExit(2)", 2, ""),
        ("raise FeaturewireError('it\\nfailed; do this')", 1, "it failed; do this"),
        ("open('/no/such/file')", 1, "/no/such/file: No such file or directory"),
        (
            "return [][1]",
            1,
            "internal error: IndexError: list index out of range; FEATUREWIRE_DEBUG=1 shows where",
        ),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_how_a_command_ends_becomes_an_exit_status_and_one_line(
    command, tmp_path, body, status, line
):
    source = f"from featurewire import FeaturewireError\ndef plugged(argv):\n    {body}\n"
    shown = command("plugged", environment=plug_in(tmp_path, "plugged", source))
    assert shown.returncode == status
    assert shown.stderr == (f"featurewire plugged: {line}\n" if line else "")


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream(command, tmp_path, closed):
    """A library's output on standard error would mix with it."""
    source = (
        "import os\ndef plugged(argv):\n"
        "    with open('opened', 'w') as file:\n"
        "        file.write(str(file.fileno()))\n"
        "    return 0\n"
    )
    shown = command(
        "plugged",
        environment=plug_in(tmp_path, "plugged", source),
        before=["sh", "-c", f'exec "$@" {closed}', "sh"],
    )
    assert shown.returncode == 0
    assert int((tmp_path / "opened").read_text()) > 2


def test_an_internal_error_shows_where_when_asked(command, tmp_path):
    environment = plug_in(tmp_path, "plugged", "def plugged(argv):\n    return [][1]\n")
    shown = command("plugged", environment=environment | {"FEATUREWIRE_DEBUG": "1"})
    assert shown.returncode == 1
    assert "plugged_plug.py" in shown.stderr


def test_a_reader_that_goes_away_leaves_no_traceback(tmp_path):
    source = (
        "def plugged(argv):\n    for _ in range(100000):\n        print('line')\n    return 0\n"
    )
    environment = plug_in(tmp_path, "plugged", source)
    with subprocess.Popen(
        [FEATUREWIRE, "plugged"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 141
    assert errors == b""


def test_an_interrupt_ends_with_130_and_no_traceback(tmp_path):
    source = "import time\ndef plugged(argv):\n    print('here', flush=True)\n    time.sleep(60)\n"
    environment = plug_in(tmp_path, "plugged", source)
    with subprocess.Popen(
        [FEATUREWIRE, "plugged"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(60) == 130
    assert errors == b""
