"""Options and subcommands in a command's `--help`."""

from __future__ import annotations

import argparse
import contextlib
import io
import re


def help_of(parser: argparse.ArgumentParser, *words: str) -> str:
    """The text of `WORDS… --help`."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        parser.parse_args([*words, "--help"])
    return text.getvalue()


def options_in(text: str) -> set[str]:
    """The long options that a help text lists, without `--help`."""
    lists = "\n".join(re.findall(r"^  ((?:-\w, )?--\S.*?)(?:  |$)", text, re.M))
    return set(re.findall(r"--[A-Za-z][\w-]*", lists)) - {"--help"}


def steps_in(text: str) -> list[str]:
    """The subcommands that a help text lists."""
    return re.findall(r"^    ([a-z]+)(?:  |$)", text, re.M)
