"""`check` and the watch against a fleet: clients of the labels, over all replicas."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from featurewire import ChannelConfig, Client, TLSConfig
from featurewire_rollout.decide.plan import CANARY, PREVIOUS, STABLE
from featurewire_rollout.fleet.converge import Say
from featurewire_rollout.steps.watch import WatchConfig, watch

if TYPE_CHECKING:
    from featurewire_rollout.check import Report, Thresholds

__all__ = ["Trial"]

PROBE_IMAGES = 32


class Trial:
    """Sends images to the labels of a model."""

    def __init__(
        self,
        targets: Sequence[str],
        *,
        model: str,
        tls: TLSConfig | None = None,
        token: str | None = None,
    ) -> None:
        """`targets`: `host:port`s of the replicas that answer."""
        self._targets = ",".join(targets)
        self._model = model
        self._tls = tls
        self._token = token

    def _client(self, label: str) -> Client:
        return Client(
            self._targets,
            model=self._model,
            label=label,
            tls=self._tls,
            channel=ChannelConfig(token=self._token),
        )

    def check(
        self,
        images: Path,
        *,
        thresholds: Thresholds | None = None,
        limit: int = 500,
        seed: int = 0,
        with_crops: bool = True,
    ) -> Report:
        """The same images through `stable` and `canary`. Raises `FeaturewireError`."""
        from featurewire_rollout.check import Source, Thresholds, compare

        with self._client(STABLE) as stable, self._client(CANARY) as canary:
            return compare(
                Source(client=stable, name=STABLE),
                Source(client=canary, name=CANARY),
                images,
                thresholds=thresholds or Thresholds(),
                limit=limit,
                seed=seed,
                with_crops=with_crops,
            )

    def watch(self, images: Path, config: WatchConfig, say: Say) -> str:
        """Why `stable` must go back to `previous`, or nothing."""
        from featurewire_rollout.check.pull import find_images

        contents = [path.read_bytes() for path in find_images(images)[:PROBE_IMAGES]]
        say(f"watching stable and previous for {config.seconds:g} s")
        with ExitStack() as stack:
            new, old = (stack.enter_context(self._client(each)) for each in (STABLE, PREVIOUS))
            return watch(new, old, contents, config)
