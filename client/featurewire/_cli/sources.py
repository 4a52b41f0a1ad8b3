"""Find the images: files, directories, patterns and lists on standard input.

A `Listing` walks on a separate thread, so that the first images are sent before the walk of a large
tree has ended. It remembers every path and yields each one once.
"""

from __future__ import annotations

import glob
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import BinaryIO

from featurewire._cli.text import path_text
from featurewire.plugin.images import IMAGE_SUFFIXES

STDIN = "-"
_READ_BYTES = 1 << 16


def exists(path: str) -> bool:
    """Whether a PATH of the command line exists, or matches something as a pattern."""
    return path == STDIN or os.path.lexists(path) or next(_matches(path), None) is not None


def entries(stream: BinaryIO, separator: bytes) -> Iterator[str]:
    """Yield the paths of a list as they arrive: one per line, or with b"\\0" after each path
    (`find -print0`)."""
    rest = b""
    while chunk := stream.read1(_READ_BYTES) if hasattr(stream, "read1") else stream.read():
        *whole, rest = (rest + chunk).split(separator)
        for entry in whole:
            yield from _entry(entry, separator)
    yield from _entry(rest, separator)


def _entry(data: bytes, separator: bytes) -> Iterator[str]:
    if separator == b"\n":  # a list from Windows ends its lines with \r\n
        data = data.removesuffix(b"\r")
    if data:
        yield os.fsdecode(data)


class Listing:
    """The paths of all sources, in order, each once. Only one thread may iterate it.

    `known` holds the paths (as `path_text`) to leave out. The walking thread calls
    `on_failure(path, reason)` for a path that it cannot list. `total` is the number of paths found
    until now, and `complete` says whether the walk has ended. `skipped` counts the files in
    directories that are not images, by extension or reason.
    """

    def __init__(
        self,
        paths: Iterable[str],
        *,
        listed: Iterable[str],
        known: frozenset[str] | set[str],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self.total = 0
        self.complete = False
        self.already = 0
        self.duplicates = 0
        self.skipped: Counter[str] = Counter()
        self._paths = list(paths)
        self._listed = listed
        self._known = known
        self._on_failure = on_failure
        self._seen: set[str] = set()
        self._directories: set[tuple[int, int]] = set()
        self._found: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        """Paths; at the end None, or the exception that ended the walk."""
        # A daemon, because a list that is typed on a terminal may never end and must not block the
        # exit.
        self._thread = threading.Thread(target=self._walk, name="listing", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[str]:
        while isinstance(found := self._found.get(), str):
            yield found
        self._found.put(found)  # so that a second iteration also ends
        if found is not None:
            raise found

    def _walk(self) -> None:
        end = None
        try:
            for path in self._paths:
                for entry in self._listed if path == STDIN else [path]:
                    self._add(entry)
        except BaseException as error:  # raised again by the thread that iterates
            end = error
        self.complete = True
        self._found.put(end)

    def _add(self, path: str) -> None:
        if os.path.isdir(path):
            self._add_directory(path)
        elif os.path.lexists(path):
            self._add_file(path)
        else:
            matches = sorted(_matches(path))
            for match in matches:
                self._add(match)
            if not matches:
                self._on_failure(path_text(path), "no such file or directory")

    def _add_directory(self, top: str) -> None:
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            try:
                info = os.stat(directory)
                if (info.st_dev, info.st_ino) in self._directories:
                    continue  # a loop of links, or another path to the same directory
                self._directories.add((info.st_dev, info.st_ino))
                with os.scandir(directory) as scan:
                    found = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                self._on_failure(path_text(directory), reason_of(error))
                continue
            below = []
            for entry in found:
                extension = os.path.splitext(entry.name)[1].lower()
                if entry.name.startswith("."):
                    self.skipped["hidden"] += 1
                elif _is_directory(entry):
                    below.append(entry.path)
                elif extension in IMAGE_SUFFIXES:
                    self._add_file(entry.path)
                else:
                    self.skipped[extension or "no extension"] += 1
            waiting.extend(reversed(below))

    def _add_file(self, path: str) -> None:
        # Removes `//` and `./`, but not `a/..`, which leads elsewhere if `a` is a link.
        path = str(PurePath(path))
        text = path_text(path)
        if text in self._seen:
            self.duplicates += 1
            return
        self._seen.add(text)
        if text in self._known:
            self.already += 1
            return
        self.total += 1
        self._found.put(path)


def _matches(pattern: str) -> Iterator[str]:
    return glob.iglob(pattern, recursive=True) if glob.has_magic(pattern) else iter(())


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links; the error shows when it is read as a file
        return False


def reason_of(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()
