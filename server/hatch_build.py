"""Compile the loops of resizing while the wheel is built, if there is a C compiler.

Without one the wheel is complete but for these, and numpy resizes, in several times as much time.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "featurewire_server/preprocess/_resample.c"
LIBRARY = "featurewire_server/preprocess/_resample.so"

# The compiled file depends on no library, so it runs on every Linux with glibc, as the tag says.
FLAGS = [
    "-O3",
    "-ffp-contract=off",
    "-ffreestanding",
    "-fno-tree-loop-distribute-patterns",
    "-fPIC",
    "-shared",
    "-nostdlib",
    "-Wl,--no-undefined",
    "-Wl,--build-id=none",
    "-Wl,--strip-all",
]


class CompileResample(BuildHookInterface):
    """Adds the library to the wheel, which then fits one kind of processor."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or not sys.platform.startswith("linux"):
            return
        compiler = shlex.split(os.environ.get("CC", "cc"))
        command = [*compiler, *FLAGS, "-o", LIBRARY, SOURCE, "-lgcc"]
        try:
            subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(f"resizing is not compiled, so it will be slower: {reason}")
            Path(self.root, LIBRARY).unlink(missing_ok=True)
            return
        is_glibc = platform.libc_ver()[0] == "glibc"
        build_data["artifacts"].append(LIBRARY)
        build_data["pure_python"] = False
        system = "manylinux_2_17" if is_glibc else "linux"
        build_data["tag"] = f"py3-none-{system}_{platform.machine()}"
