"""Two real servers that read one config, and rollouts of them."""

from __future__ import annotations

import shutil
from pathlib import Path

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


class Stack:
    """Two servers that read one config, and a rollout of them."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.base = folder / "models"
        self.base.mkdir()
        self.models = models
        shutil.copytree(models / "1", self.base / "1")
        self.config = folder / "models.config"
        self.config.write_text(CONFIG.format(base=self.base))
        flags = (
            f"--model_config_file={self.config}",
            "--allow_version_labels_for_unavailable_models",
            "--file_system_poll_wait_seconds=0",
            "--max_num_load_retries=0",
        )
        self.servers = [ServerProcess(*flags, log=folder / f"{n}.log") for n in range(2)]

    def publish(self, version: int, source: int = 2) -> Path:
        shutil.copytree(self.models / str(source), self.base / str(version))
        return self.base / str(version)

    def rollout(self, **options: object) -> Rollout:
        settings = {"timeout": 60.0, "memory_check": False, "config": str(self.config)} | options
        servers = [server.target for server in self.servers]
        return Rollout(RolloutConfig(servers=servers, model="tiny", **settings), say=print)

    def labels(self) -> list[dict[str, int]]:
        with self.rollout() as rollout:
            return [dict(each.labels) for each in rollout.status().fleet.replicas]
