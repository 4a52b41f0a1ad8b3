"""A mistake in a polled config file changes nothing and is reported."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from featurewire_server.common.errors import ServingError
from featurewire_server.config_file import ConfigFile
from featurewire_server.models.manager import Manager, ManagerConfig
from tests.server.support import FakeEngine, config, direct, model, spec
from tests.support.waiting import wait_until


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    (tmp_path / "models" / "1").mkdir(parents=True)
    return tmp_path / "models"


@pytest.fixture
def manager(base_path):
    def load(name, _version, _path):
        if name == "broken":
            raise OSError("no such model")
        return direct(FakeEngine())

    made = Manager(load, ManagerConfig(poll_seconds=0, max_load_retries=0))
    made.reload(config(model("m", base_path)))
    yield made
    made.stop()


def message(manager: Manager) -> str:
    """The error message in the status of the AVAILABLE version of `m`."""
    (status,) = manager.statuses(spec("m"))
    assert (status.state, status.status.error_code) == (30, 0)
    return status.status.error_message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no model_config_list"),
        ("# nothing yet", "has no model_config_list"),
        (
            "model_config_list { config {",
            "Error parsing text-format tensorflow.serving.ModelServerConfig",
        ),
        ('model_config_list { config { name: "m" } }', "m"),
    ],
)
def test_a_broken_file_keeps_the_old_config_and_the_status_says_why(
    manager, base_path, tmp_path, caplog, text, reason
) -> None:
    path = tmp_path / "models.config"
    path.write_text(text)
    file = ConfigFile(str(path), manager)
    with caplog.at_level(logging.ERROR):
        file.poll()
        file.poll()
    assert len(caplog.messages) == 1
    assert reason in caplog.messages[0]
    assert "the current config stays" in caplog.messages[0]
    assert message(manager) == caplog.messages[0]

    path.write_text(str(config(model("m", base_path))))
    file.poll()
    assert message(manager) == ""


def test_an_empty_list_unloads_what_it_no_longer_names(manager, tmp_path) -> None:
    path = tmp_path / "models.config"
    path.write_text("model_config_list {}")
    ConfigFile(str(path), manager).poll()
    wait_until(lambda: manager.statuses(spec("m"))[0].state == 50)


def test_a_list_that_is_in_force_though_a_model_fails_is_said_to_be(
    manager, base_path, tmp_path, caplog
) -> None:
    path = tmp_path / "models.config"
    path.write_text(str(config(model("m", base_path), model("broken", base_path))))
    with caplog.at_level(logging.ERROR, "featurewire_server.config_file"):
        ConfigFile(str(path), manager).poll()
    said = [text for text in caplog.messages if "models.config is in effect" in text]
    assert len(said) == 1
    assert "no such model" in said[0]


def test_request_logging_is_refused_in_so_many_words(manager, base_path, caplog) -> None:
    logged = "logging_config { sampling_config { sampling_rate: 0.1 } }"
    with caplog.at_level(logging.WARNING):
        manager.reload(config(model("m", base_path, logged)))
    assert [text for text in caplog.messages if text.startswith("m: logging_config")]


@pytest.mark.parametrize("kind", ["file", "dangling link", "loop", "empty directory"])
def test_a_version_that_is_no_readable_directory_takes_down_nobody(
    base_path, manager, kind
) -> None:
    path = base_path / "2"
    if kind == "file":
        path.write_text("x")
    elif kind == "dangling link":
        path.symlink_to(base_path / "nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.mkdir()
    manager.poll()
    states = {each.version: each.state for each in manager.statuses(spec("m"))}
    assert 30 in states.values()


def test_a_model_that_does_not_load_is_complained_of_until_it_loads(
    manager, base_path, tmp_path
) -> None:
    path = tmp_path / "models.config"
    path.write_text(str(config(model("m", base_path), model("broken", base_path))))
    file = ConfigFile(str(path), manager)
    for _ in range(3):
        file.poll()
        assert "name: broken version: 1" in message(manager)
    path.write_text(str(config(model("m", base_path))))
    file.poll()
    assert message(manager) == ""


def test_a_base_path_that_does_not_exist_is_named(manager, base_path, tmp_path, caplog) -> None:
    path, missing = tmp_path / "models.config", tmp_path / "typo"
    path.write_text(str(config(model("m", base_path), model("absent", missing))))
    file = ConfigFile(str(path), manager)
    for _ in range(2):
        file.poll()
        assert f"cannot read the base path {missing}: No such file" in message(manager)
    with pytest.raises(ServingError, match=f"of model absent: cannot read .* {missing}"):
        manager.statuses(spec("absent"))
    assert [r.levelname for r in caplog.records if str(missing) in r.message][:1] == ["ERROR"]
    (missing / "1").mkdir(parents=True)
    file.poll()
    assert message(manager) == ""
    assert manager.statuses(spec("absent"))
