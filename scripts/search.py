"""Run the visual-search sample on this machine: a server, an index, a page (for `make search`)."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from local_stack import (
    MODEL,
    ROOT,
    StackError,
    base_path_of,
    end_as_by_ctrl_c,
    prepared,
    say,
    serving,
)

SAMPLE = ROOT / "samples" / "visual_search"


def search(module: str, photos: Path, port: int, python: Path) -> int:
    """Serve until Ctrl-C. Each folder of photos has its own index under build/."""
    index = ROOT / "build" / "search" / base_path_of(str(photos)).name
    with serving(prepared(module)) as target:
        command = [str(python), "-m", "visual_search", "serve", "--photos", str(photos)]
        command += ["--index", str(index), "--server", target, "--model", MODEL]
        service = subprocess.Popen([*command, "--port", str(port)], cwd=SAMPLE, env=os.environ)
        try:
            return service.wait()
        except KeyboardInterrupt:
            say("")
            return 0
        finally:
            service.terminate()  # harmless after Ctrl-C
            service.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make search", description=__doc__)
    parser.add_argument("--module", default="auto")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8600)
    parser.add_argument("--python", type=Path, required=True, help="of the sample's environment")
    arguments = parser.parse_args()
    end_as_by_ctrl_c()
    photos = arguments.photos.expanduser().resolve()
    try:
        if not photos.is_dir():
            raise StackError(f"{photos} is not a folder: make search PHOTOS=folder")
        # Do not resolve the link: an environment's Python finds its packages by its own path.
        return search(arguments.module, photos, arguments.port, arguments.python.absolute())
    except StackError as error:
        print(f"search: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
