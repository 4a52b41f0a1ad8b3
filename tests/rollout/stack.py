"""Real servers that read one config, and their rollouts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurewire import Client, TLSConfig
from featurewire_rollout import Rollout, RolloutConfig
from tests.support.process import ServerProcess

CONFIG = """# ours
model_config_list {{
  config {{
    name: "tiny"
    base_path: "{base}"
    model_platform: "tensorflow"
    # one at first
    model_version_policy {{ specific {{ versions: 1 }} }}
  }}
}}
"""


LABELS = """
    version_labels { key: "stable" value: 1 }
    version_labels { key: "canary" value: 1 }
  }
}
"""


class Stack:
    """A number of servers that read one config, by default two, and their rollouts."""

    def __init__(
        self, folder: Path, models: Path, *, replicas: int = 2, labelled: bool = False
    ) -> None:
        """`labelled`: with the labels of a completed rollout."""
        self.base = folder / "models"
        self.base.mkdir()
        self.models = models
        shutil.copytree(models / "1", self.base / "1")
        self.config = folder / "models.config"
        text = CONFIG.format(base=self.base)
        self.config.write_text(text.removesuffix("\n  }\n}\n") + LABELS if labelled else text)
        flags = (
            f"--model_config_file={self.config}",
            "--allow_version_labels_for_unavailable_models",
            "--file_system_poll_wait_seconds=0",
            "--max_num_load_retries=0",
        )
        self.servers = [ServerProcess(*flags, log=folder / f"{n}.log") for n in range(replicas)]

    @contextmanager
    def running(self, tls: TLSConfig | None = None) -> Iterator[Stack]:
        """Start the servers, wait for the model like a client, and stop them at the end."""
        try:
            for server in self.servers:
                server.start()
            for server in self.servers:
                with Client(server.target, model="tiny", tls=tls) as client:
                    client.wait_until_ready(60)
            yield self
        finally:
            for server in self.servers:
                if server.process is not None:
                    server.stop()

    @property
    def target(self) -> str:
        """All servers as a client's target."""
        return ",".join(server.target for server in self.servers)

    def options(self) -> list[str]:
        """The command's options for the config, the servers and the model."""
        servers = [f"--server={server.target}" for server in self.servers]
        return [f"--config={self.config}", *servers, "--model=tiny"]

    def publish(self, version: int, source: int = 2) -> Path:
        shutil.copytree(self.models / str(source), self.base / str(version))
        return self.base / str(version)

    def rollout(self, **options: Any) -> Rollout:
        settings: dict[str, Any] = {
            "timeout": 60.0,
            "memory_check": False,
            "config": str(self.config),
        } | options
        servers = [server.target for server in self.servers]
        return Rollout(RolloutConfig(servers=servers, model="tiny", **settings), say=print)

    def labels(self) -> list[dict[str, int]]:
        with self.rollout() as rollout:
            return [dict(each.labels) for each in rollout.status().fleet.replicas]
