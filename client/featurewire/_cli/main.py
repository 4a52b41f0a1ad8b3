"""The `featurewire` command: finds the installed subcommands and runs one of them.

Distributions add subcommands through the entry-point group `featurewire.commands`. An entry's name
is the subcommand; its value is a callable `f(argv) -> exit status` whose docstring begins with the
help line. This module does not depend on any subcommand.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

GROUP = "featurewire.commands"
DEBUG_VARIABLE = "FEATUREWIRE_DEBUG"

ELSEWHERE: Mapping[str, str] = {
    "export": "exporter",
    "inspect": "exporter",
    "verify": "exporter",
    "serve": "server",
    "rollout": "rollout",
}
"""Subcommands of the other distributions, and the repository folder of each distribution."""

Command = Callable[[list[str]], int]


def run(argv: Sequence[str] | None = None) -> int:
    """Run `featurewire ARGV` and return its exit status.

    0: done. 1: the work failed. 2: wrong usage. 130: interrupted. 143: terminated. 141: the reader
    of standard output closed it. A failure is one line on standard error. A command may raise
    `KeyboardInterrupt` with the exit status as its argument.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _fill_closed_streams()
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as error:
        # Exit at once. A normal exit would join threads that still wait for a server.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(error.args[0] if error.args else 130)
    except BrokenPipeError:
        # The interpreter flushes standard output again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _fill_closed_streams() -> None:
    """Open `os.devnull` for standard streams that the caller closed (`2>&-`).

    Otherwise a file that is opened later would get the free descriptor, and libraries that write to
    standard error would write into it. The order matters, because a newly opened file gets the
    lowest free descriptor. `sys.stdin` stays None, so that a command can report the missing list.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _dispatch(arguments: list[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name == "help":
        name, rest = (rest[0], ["--help"]) if rest else ("--help", [])
    if name in ("-h", "--help"):
        print(_help(_installed()))
        return 0
    if name == "--version":
        print(_versions())
        return 0
    if not name:
        print(_help(_installed()), file=sys.stderr)
        return 2
    installed = _installed()
    if name not in installed:
        print(_unknown(name, installed), file=sys.stderr)
        return 2
    return _call(name, installed[name], rest)


def _installed() -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=GROUP):
        found.setdefault(entry.name, entry)
    return dict(sorted(found.items()))


def _call(name: str, entry: metadata.EntryPoint, arguments: list[str]) -> int:
    try:
        command = _load(entry)
    except Exception as error:
        return _fail(name, f"cannot be loaded ({_short(error)}); reinstall {_distribution(entry)}")
    try:
        return command(arguments)
    except SystemExit as error:
        # argparse: 0 after --help, 2 after wrong usage.
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(name, f"{error.filename}: {error.strerror}")
        if (foreseen := _foreseen(error)) is not None:
            return _fail(name, foreseen)
        return _fail(name, f"internal error: {_short(error)}; {DEBUG_VARIABLE}=1 shows where")


def _foreseen(exc: Exception) -> str | None:
    """The text of an expected kind of failure; None for any other exception."""
    from featurewire import FeaturewireError
    from featurewire.plugin.arguments import CommandFailure
    from featurewire.plugin.wording import cli_message

    return (
        cli_message(exc) if isinstance(exc, OSError | FeaturewireError | CommandFailure) else None
    )


def _load(entry: metadata.EntryPoint) -> Command:
    command: Command = entry.load()
    return command


def _fail(name: str, message: str) -> int:
    print(f"featurewire {name}: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _short(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _distribution(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module


def _help_line(entry: metadata.EntryPoint) -> str:
    """The first line of the callable's docstring, or the error if the plug-in cannot be loaded."""
    try:
        lines = (_load(entry).__doc__ or "").strip().splitlines()
        return lines[0] if lines else ""
    except Exception as error:
        return f"(cannot be loaded: {' '.join(_short(error).split())})"


def _help(installed: Mapping[str, metadata.EntryPoint]) -> str:
    lines = [
        "usage: featurewire COMMAND [ARGUMENTS]",
        "",
        "Image bytes in, feature vectors out.",
        "",
        "commands:",
    ]
    lines += [f"  {name:<10}{_help_line(entry)}" for name, entry in installed.items()]
    missing: dict[str, list[str]] = {}
    for name, folder in ELSEWHERE.items():
        if name not in installed:
            missing.setdefault(folder, []).append(name)
    if missing:
        lines += ["", "not installed (run pip in a checkout of the featurewire repository):"]
        lines += [
            f"  {', '.join(names):<26}pip install ./{folder}" for folder, names in missing.items()
        ]
    lines += [
        "",
        "options:",
        "  -h, --help  show this list; `featurewire COMMAND --help` explains one command",
        "  --version   show the installed distributions and their versions",
    ]
    return "\n".join(lines)


def _versions() -> str:
    lines = []
    folders = dict.fromkeys(ELSEWHERE.values())
    for name in ("featurewire", *(f"featurewire-{folder}" for folder in folders)):
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "\n".join(lines)


def _unknown(name: str, installed: Mapping[str, metadata.EntryPoint]) -> str:
    if name in ELSEWHERE:
        return (
            f"featurewire: {name} is not installed; run pip install ./{ELSEWHERE[name]} in a "
            "checkout of the featurewire repository"
        )
    if name.startswith("-"):
        return f"featurewire: unknown option {name}; see featurewire --help"
    import difflib

    close = difflib.get_close_matches(name, [*installed, *ELSEWHERE], n=1)
    advice = f"did you mean {close[0]}?" if close else "see featurewire --help"
    return f"featurewire: no command named {name!r}; {advice}"


if __name__ == "__main__":
    sys.exit(run())
