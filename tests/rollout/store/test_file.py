"""Edits keep the rest of the config's text, and the file is replaced atomically."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format

from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_rollout import ConfigFileError, ConflictError
from featurewire_rollout.store.file import FileStore
from featurewire_rollout.store.model_config import edit, entry_of, parse

ROOT = Path(__file__).resolve().parents[3]
OTHERS = """# the fleet's
model_config_list {
  config < name: 'other' base_path: "/o # no comment }" model_platform: "tensorflow"
           version_labels { key: "stable" value: 7 } >
  config: { name: "m"  # ours
    base_path: "/m", model_platform: "tensorflow"
    version_labels { key: "blue" value: 1 }
    model_version_policy: { latest { num_versions: 2 } }  # newest two
    logging_config { sampling_config { sampling_rate: 0.5 } }
  }
}
"""


def test_an_edit_changes_only_the_policy_and_labels_of_its_model() -> None:
    made = edit(OTHERS, "m", versions=[2, 1], labels={"stable": 1, "blue": 1}, name="x")
    for kept in ("# the fleet's", "name: 'other'", "# ours", "# newest two", "sampling_rate: 0.5"):
        assert kept in made
    before, after = parse(OTHERS, "x"), parse(made, "x")
    assert after.model_config_list.config[0] == before.model_config_list.config[0]
    entry = entry_of(after, "m", "x")
    assert (entry.versions, dict(entry.labels)) == ((1, 2), {"blue": 1, "stable": 1})
    again = edit(made, "m", versions=[2], labels={"stable": 2}, name="x")
    assert entry_of(parse(again, "x"), "m", "x").versions == (2,)
    assert again.count("version_labels") == 2  # one is the other model's


def test_the_shipped_config_can_be_edited() -> None:
    text = (ROOT / "serving_config" / "models.config").read_text()
    made = edit(text, "inception_resnet_v2", versions=[1], labels={"stable": 1}, name="x")
    assert [line for line in text.splitlines() if "#" in line] == [
        line for line in made.splitlines() if "#" in line
    ]


def test_an_unusual_layout_is_printed_anew() -> None:
    text = 'model_config_list { config: [{ name: "m" base_path: "/m" model_platform: "t" }] }'
    made = edit(text, "m", versions=[3], labels={"stable": 3}, name="x")
    assert entry_of(parse(made, "x"), "m", "x").versions == (3,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model_config_list {\n config {", r"x:\d+: not a ModelServerConfig"),
        ("", "has no model_config_list"),
        ('model_config_list { config { name: "m" new_field: 1 } }', "new_field"),
        ('model_config_list { config { name: "n" } }', "has no model m; it has: n"),
        ('model_config_list { config { name: "m" } config { name: "m" } }', "2 times"),
    ],
)
def test_what_is_wrong_with_a_config_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(ConfigFileError, match=reason) as caught:
        edit(text, "m", versions=[1], labels={}, name="x")
    assert "\n" not in str(caught.value)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    (tmp_path / "models.config").write_text("old")
    return FileStore(tmp_path / "models.config")


def test_a_write_keeps_the_mode_and_refuses_what_changed_meanwhile(
    store: FileStore, tmp_path: Path
) -> None:
    path = tmp_path / "models.config"
    path.chmod(0o640)
    store.write("new", expected="old")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(ConflictError, match="changed by another writer"):
        store.write("newer", expected="old")
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["models.config"]


def test_a_link_stays_one(store: FileStore, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "models.config")
    FileStore(link).write("new", expected="old")
    assert link.is_symlink()
    assert store.read() == "new"


SCRIPT = """
import os, resource, signal, sys
from featurewire_rollout.store.file import FileStore
store = FileStore(sys.argv[1])
if sys.argv[2] == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
else:
    name = sys.argv[2]
    real = getattr(os, name)
    setattr(os, name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
with store.lock("me"):
    store.write("new" * 1000, expected="old")
"""


@pytest.mark.parametrize("fault", ["full", "fchmod", "fsync", "rename"])
def test_after_a_full_disk_or_a_kill_the_next_write_works(
    store: FileStore, tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "models.config"
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), fault], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == (1 if fault == "full" else -9)
    if fault == "full":
        assert "it is unchanged" in ended.stderr
    assert path.read_text() == "old"
    with store.lock("next"):
        store.write("new", expected="old")
    assert path.read_text() == "new"
    assert list(tmp_path.glob(".*.tmp")) == []


def test_the_edit_gives_what_tensorflow_serving_parses() -> None:
    made = edit(OTHERS, "m", versions=[1], labels={'a"b': 1}, name="x")
    config = text_format.Parse(made, ModelServerConfig())
    assert config.model_config_list.config[1].version_labels['a"b'] == 1
