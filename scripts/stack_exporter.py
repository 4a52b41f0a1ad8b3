#!/usr/bin/env python3
"""The command of the stack's exporter image: fills, extends and prunes the volume of versions.

    ensure                        export $MODULE if the volume is empty; `up` runs this first
    export MODULE [BASE] [...]    add a version; BASE is the model's folder in the volume by default
    prune [--keep N]              remove versions that are neither the newest N nor in models.config
    inspect …, verify …           run these commands of `featurewire`

MODELS (/models), MODEL_NAME and MODEL_CONFIG (/serving_config/models.config) set the locations.
Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

DEFAULT_MODULE = "https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/1"
CA_BUNDLE = Path("/run/secrets/ca_bundle")  # authorities for fetching modules; may be empty
ADD = "docker compose run --rm exporter export"


class StackError(Exception):
    """A problem for the user to fix, in one line."""


def versions_in(base: Path) -> list[int]:
    """The versions of a model, ascending: folders whose name is a number."""
    if not base.is_dir():
        return []
    return sorted(int(path.name) for path in base.iterdir() if path.name.isdigit())


def module_of(version: Path) -> str | None:
    """The handle that a version was exported from; None if its manifest does not have it."""
    try:
        manifest = json.loads((version / "assets.extra" / "featurewire.json").read_text())
        return str(manifest["module"]["handle"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def wanted(module: str, present: dict[int, str | None]) -> str | None:
    """The module that `ensure` must export; None if the volume needs no export.

    Without a requested module, the volume is served as it is. During a rollout the volume also has
    versions of the old module, so any version of the requested one is enough. Raises StackError if
    the volume has only other modules.
    """
    if not present:
        return module or DEFAULT_MODULE
    if not module or module in present.values():
        return None
    held = ", ".join(
        f"version {n} of {handle or 'unknown origin'}" for n, handle in present.items()
    )
    raise StackError(
        f"the volume holds {held}, but not a version of MODULE={module}. To add one: {ADD} "
        f"{module}; to serve the volume as it is: leave MODULE empty"
    )


def ensure(base: Path, module: str) -> None:
    present = {n: module_of(base / str(n)) for n in versions_in(base)}
    chosen = wanted(module, present)
    if chosen is not None:
        export(base, [chosen])
    newest = max(present)
    print(f"{base} holds version {newest} of {present[newest] or 'unknown origin'}")


def export(base: Path, arguments: Sequence[str]) -> NoReturn:
    arguments = with_base(arguments, base)
    if missing := unseen(arguments):
        raise StackError(
            f"{missing} is not in the container, which can read only "
            f"{os.environ.get('MODULE_DIR', '.')}: set MODULE_DIR to its folder, and give the path "
            "relative to that"
        )
    featurewire("export", *arguments)


def with_base(arguments: Sequence[str], base: Path) -> list[str]:
    """The arguments of `featurewire export`, with the model's folder if they do not name one."""
    from featurewire_exporter.cli.export import export_parser

    complete = [*arguments, str(base)]
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            export_parser().parse_args(complete)
    except SystemExit:
        return list(arguments)
    return complete


def unseen(arguments: Sequence[str]) -> str | None:
    """The local module among the arguments, if the container does not have it."""
    from featurewire_exporter.cli.export import export_parser

    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            parsed = export_parser().parse_args(list(arguments))
    except SystemExit:
        return None  # `featurewire export` explains the problem
    local = "://" not in parsed.module and parsed.module != "stand-in"
    if not local or parsed.kind == "slim-checkpoint" or Path(parsed.module).exists():
        return None
    return str(parsed.module)


def prunable(present: Sequence[int], keep: int, named: set[int] | None) -> list[int]:
    """The versions to remove: not among the `keep` highest and not `named` by models.config.

    `named` is None if the config serves all versions, and then nothing is removed.
    """
    if named is None:
        return []
    return [n for n in sorted(present)[:-keep] if n not in named]


def versions_named_by(config: Path, model: str, present: Sequence[int]) -> set[int] | None:
    """The versions that models.config serves or labels, or None for all. Raises StackError."""
    from google.protobuf import text_format

    from featurewire._tfs.model_server_config_pb2 import ModelServerConfig

    try:
        parsed = text_format.Parse(config.read_text(), ModelServerConfig())
    except (OSError, text_format.ParseError) as error:
        raise StackError(f"cannot tell which versions are in use from {config}: {error}") from error
    named: set[int] = set()
    for entry in parsed.model_config_list.config:
        if entry.name != model:
            continue
        policy = entry.model_version_policy
        named |= set(entry.version_labels.values()) | set(policy.specific.versions)
        if policy.HasField("all"):
            return None
        if not policy.HasField("specific"):
            named |= set(sorted(present)[-max(policy.latest.num_versions, 1) :])
    return named


def prune(base: Path, config: Path, model: str, arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="prune")
    parser.add_argument("--keep", type=int, default=2, help="newest versions to keep (default: 2)")
    keep = parser.parse_args(arguments).keep
    if keep < 1:
        parser.error("--keep must be at least 1")
    present = versions_in(base)
    named = versions_named_by(config, model, present)
    if named is None:
        raise StackError(f"{config} serves all versions of {model}; first list the ones to keep")
    for number in prunable(present, keep, named):
        # Rename it first, because a server would load a numbered folder that is half removed.
        leaving = base / f"removed-{number}"
        (base / str(number)).rename(leaving)
        shutil.rmtree(leaving)
        print(f"removed version {number}")
    print(f"{base} holds {', '.join(map(str, versions_in(base))) or 'no version'}")


def featurewire(*arguments: str) -> NoReturn:
    """Replace this process by the command, which then gets its signals and sets its status."""
    sys.stdout.flush()
    if CA_BUNDLE.is_file() and CA_BUNDLE.stat().st_size:
        for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            os.environ.setdefault(variable, str(CA_BUNDLE))
    os.execvp("featurewire", ["featurewire", *arguments])


def main(argv: Sequence[str]) -> int:
    model = os.environ.get("MODEL_NAME") or "inception_resnet_v2"
    base = Path(os.environ.get("MODELS") or "/models") / model
    config = Path(os.environ.get("MODEL_CONFIG") or "/serving_config/models.config")
    command, *arguments = argv or ["ensure"]
    try:
        if command == "ensure":
            ensure(base, os.environ.get("MODULE", ""))
        elif command == "export":
            export(base, arguments)
        elif command == "prune":
            prune(base, config, model, arguments)
        else:
            featurewire(command, *arguments)
    except (StackError, OSError) as error:
        print(f"exporter: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
