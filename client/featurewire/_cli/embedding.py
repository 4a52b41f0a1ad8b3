"""One run of `featurewire embed`: it sends images through a stream and writes the output."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

from featurewire import FeaturewireError, Result
from featurewire._cli.availability import wait
from featurewire._cli.connection import connect, describe
from featurewire._cli.origins import VectorSpaceGuard
from featurewire._cli.outputs import Output
from featurewire._cli.progress import Known, Progress, Screen, counted, duration
from featurewire._cli.rows import Origin
from featurewire._cli.sources import Listing, reason_of
from featurewire._cli.text import path_text
from featurewire.plugin.arguments import CommandFailure
from featurewire.plugin.interrupts import Hold, interruptible
from featurewire.plugin.wording import cli_message


class EmbedRun:
    """One run over all sources."""

    def __init__(self, args: argparse.Namespace, output: Output) -> None:
        self._args = args
        self._output = output
        self._client = connect(args)
        self._known: set[str] = set()
        """Paths whose rows are already in the output."""
        self._guard = VectorSpaceGuard(
            model=args.model,
            vector_space_of=lambda version: (
                args.vector_space or describe(self._client, version).vector_space
            ),
        )
        self._progress = Progress("featurewire embed", quiet=args.quiet)
        self._new = 0

    def embed(self, listed: Iterable[str]) -> int:
        """Embed all images, publish the output and return the exit status.

        `listed` are the paths that `-` stands for. Raises `CommandFailure` if the run cannot go
        on; finished rows then stay in the journal.
        """
        started = time.monotonic()
        if self._args.resume:
            self._output.load(self._loaded)
        if self._args.wait is not None:
            self._wait()
        # Ask before sending an image, to report a wrong address or model name at once.
        try:
            answers = describe(self._client)
        except FeaturewireError as error:
            raise CommandFailure(cli_message(error)) from error
        if answers.version is not None:
            self._guard.of(answers.version)
        listing = Listing(
            self._args.paths, listed=listed, known=self._known, on_failure=self._progress.fail
        )
        self._progress.start(listing)
        try:
            with interruptible() as hold:
                for result in self._client.stream((path, Path(path)) for path in listing):
                    self._take(result, hold)
                self._client.close()
                seconds = time.monotonic() - started
                self._progress.close()
                self._publish()
        except (FeaturewireError, CommandFailure) as error:
            self._output.leave()
            raise CommandFailure(f"{cli_message(error)}{self._output.advice()}") from error
        except OSError as error:
            self._output.leave()
            path = error.filename or self._args.output
            raise CommandFailure(
                f"{path}: {error.strerror or error}{self._output.advice()}"
            ) from error
        except KeyboardInterrupt:
            # Do not close the client: if the interrupt came while gRPC was starting a call, closing
            # the channel may hang.
            self._output.leave()
            self._progress.say(f"interrupted{self._output.advice()}")
            raise
        finally:
            self._progress.close()
        return self._end(listing, seconds)

    def _publish(self) -> None:
        """Write the final files, with progress because a large output takes a while."""
        name = f"featurewire embed: writing {self._args.output}"
        with Progress(name, unit="rows", quiet=self._args.quiet) as progress:
            progress.start(Known(self._output.rows))
            self._output.publish(progress.advance)

    def _wait(self) -> None:
        """Wait for the model. Raises `CommandFailure` if it is not AVAILABLE in time."""
        try:
            with Screen("featurewire embed", quiet=self._args.quiet) as screen:
                report = wait(self._client, self._args, self._args.wait, on_look=screen.wait)
        except FeaturewireError as error:
            raise CommandFailure(cli_message(error)) from error
        if not report.available:
            states = report.states()
            raise CommandFailure(
                report.failure(self._args.model)
                + (f": {states}" if states else "")
                + "; check the server's log, or wait longer"
            )

    def _loaded(self, path: str, origin: Origin) -> None:
        self._known.add(path)
        self._guard.loaded(origin)

    def _take(self, result: Result[str], hold: Hold) -> None:
        path = path_text(result.key)
        if result.error is None:
            origin = self._guard.of(result.embedding.version)
            # Count the row with it: after Ctrl-C between the two, the summary would be wrong.
            with hold:
                self._output.append(path, origin, result.embedding.vector)
                self._new += 1
        elif isinstance(cause := result.error.__cause__, OSError):
            self._progress.fail(path, reason_of(cause))
        else:
            text = cli_message(result.error).removeprefix(f"{result.key!r}: ")
            self._progress.fail(path, result.error.reason, text)
        self._progress.advance()

    def _end(self, listing: Listing, seconds: float) -> int:
        if not self._output.rows:
            if self._progress.failed:
                raise CommandFailure(f"no image gave a vector ({self._failures()})")
            raise CommandFailure(f"nothing to embed: no images found{_skipped(listing)}")
        if not self._args.quiet:
            self._progress.say(self._summary(listing, seconds))
        return 1 if self._progress.failed else 0

    def _failures(self) -> str:
        failed = self._progress.failed
        return f"{failed.total()} failed ({counted(failed)})"

    def _summary(self, listing: Listing, seconds: float) -> str:
        files = " and ".join(str(path) for path in self._output.files)
        parts = [f"{files}: {self._output.rows} rows, {self._new} of them new"]
        if self._progress.failed:
            parts.append(self._failures())
        if listing.duplicates:
            parts.append(f"{listing.duplicates} paths given twice")
        rate = self._new / seconds if seconds else 0.0
        parts.append(f"{duration(seconds)}, {rate:.1f} images/s")
        return "; ".join(parts) + _skipped(listing)


def _skipped(listing: Listing) -> str:
    if not listing.skipped:
        return ""
    return f"; {listing.skipped.total()} other files skipped ({counted(listing.skipped)})"
