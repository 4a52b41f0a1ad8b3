"""The building blocks of other distributions' commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from featurewire.plugin.arguments import CommandParser
from featurewire.plugin.credentials import (
    add_credentials,
    apply_credentials,
    tls_of,
    token_of,
)
from featurewire.plugin.files import sync, version_folders
from featurewire.plugin.images import find_images


def credentials(*argv: str, **environment: str):
    parser = CommandParser("featurewire try", "Try.")
    add_credentials(parser)
    args = parser.parse_args(argv)
    return args, apply_credentials(parser, args, environment)


def test_credentials_come_from_options_and_from_variables(tmp_path):
    (tmp_path / "token").write_text(" secret\n")
    args, taken = credentials("--tls", FEATUREWIRE_TOKEN_FILE=str(tmp_path / "token"))
    assert taken == ("token_file",)
    assert token_of(args) == "secret"
    assert tls_of(args) is not None
    args, taken = credentials("--no-tls", FEATUREWIRE_TLS="1")
    assert (tls_of(args), token_of(args), taken) == (None, None, ())


def test_images_are_found_in_folders_below_and_sorted(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.JPG", "b/1.webp", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.png", "b/1.webp", "b/2.JPG"]


def test_version_folders_are_read_as_tensorflow_serving_does(tmp_path):
    for name in ("1", "007", "7", "12x", "٣", "9" * 30, "0"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").touch()
    assert version_folders(tmp_path) == {
        0: tmp_path / "0",
        1: tmp_path / "1",
        7: tmp_path / "7",
    }


def test_files_and_folders_are_synced(tmp_path):
    (tmp_path / "file").touch()
    sync(tmp_path / "file")
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "missing")


def test_the_kit_and_the_manifest_import_nothing_heavy():
    modules = ["manifest.spaces", "manifest.files", "manifest.network"]
    modules += [f"plugin.{each}" for each in ("arguments", "credentials", "environment", "files")]
    modules += [f"plugin.{each}" for each in ("images", "interrupts", "wording")]
    lines = ["import sys", *(f"import featurewire.{each}" for each in modules)]
    lines.append("print({'grpc', 'numpy', 'google.protobuf'} & set(sys.modules))")
    code = "\n".join(lines)
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
