"""Configs that would make TensorFlow Serving refuse later ones are never sent."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from featurewire_rollout import ConfigFileError, FleetError, Rollout, RolloutConfig
from featurewire_rollout.store.legal_config import check_base_paths, check_models
from featurewire_rollout.store.model_config import parse
from tests.rollout.scripted import Scripted, shows

OWN = """
  config { name: "m" base_path: "/m" model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 2 } version_labels { key: "canary" value: 2 }
    version_labels { key: "previous" value: 1 } }"""


def config_with(other: str, own: str = OWN) -> str:
    return f"model_config_list {{{own}\n  config {{ {other} }}\n}}\n"


LEGAL = 'name: "n" base_path: "/n" model_platform: "tensorflow"'
ILLEGAL = {
    "no platform": ('name: "n" base_path: "/n"', "model n has no model_platform; add"),
    "platform twice": (f"{LEGAL} model_type: TENSORFLOW", "both model_type and model_platform"),
    "another type": ('name: "n" base_path: "/n" model_type: OTHER', "model n has another"),
    "misspelt platform": (LEGAL.replace("flow", "flwo"), "model n has tensorflwo as its platform"),
    "no name": ('base_path: "/n" model_platform: "tensorflow"', "model number 2 of the list has"),
    "no base path": ('name: "n" model_platform: "tensorflow"', "model n has no base_path"),
    "relative base path": (LEGAL.replace('"/n"', '"n"'), "not absolute: n"),
    "listed twice": (LEGAL.replace('"n"', '"m"'), "model m"),
}


@pytest.mark.parametrize("fault", ILLEGAL)
@pytest.mark.parametrize("step", ["promote", "rollback", "retire"])
def test_no_step_writes_or_sends_an_illegal_config(tmp_path: Path, step: str, fault: str) -> None:
    text, reason = ILLEGAL[fault]
    path = tmp_path / "models.config"
    path.write_text(config_with(text))
    there = ((1, "AVAILABLE"), (2, "AVAILABLE"))
    fleet = Scripted(shows(*there, stable=1, canary=1))  # it does not have the config yet
    config = RolloutConfig(
        config=str(path), servers=["a:1"], model="m", timeout=0.05, trust_config=True
    )
    with (
        Rollout(config, fleet=fleet) as made,  # type: ignore[arg-type]
        pytest.raises(ConfigFileError, match=reason) as caught,
    ):
        getattr(made, step)()
    assert "\n" not in str(caught.value)
    assert fleet.reloads == 0
    assert path.read_text() == config_with(text)


@pytest.mark.parametrize("other", [LEGAL, 'name: "n" base_path: "gs://b/n" model_type: TENSORFLOW'])
def test_what_tensorflow_serving_takes_is_legal(other: str) -> None:
    check_models(parse(config_with(other), "x"), "x")


def test_all_faults_of_a_config_are_told_at_once() -> None:
    with pytest.raises(
        ConfigFileError, match=r"has no name; .* no model_platform; .* no base_path"
    ):
        check_models(parse(config_with(""), "x"), "x")


def test_a_missing_base_path_is_refused_where_the_folders_are_seen(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    text = config_with(LEGAL, OWN).replace('"/', f'"{tmp_path}/')
    path = tmp_path / "models.config"
    path.write_text(text)

    def retire(trust: bool) -> int:
        fleet = Scripted(shows((1, "AVAILABLE"), (2, "AVAILABLE"), stable=2, canary=2))
        config = RolloutConfig(
            config=str(path), servers=["a:1"], model="m", timeout=0.05, trust_config=trust
        )
        with Rollout(config, fleet=fleet) as made:  # type: ignore[arg-type]
            with contextlib.suppress(FleetError):  # because the scripted replica never unloads
                made.retire()
            return fleet.reloads

    with pytest.raises(
        ConfigFileError, match=r"base path of model n does not exist.*--trust-config"
    ):
        retire(trust=False)
    assert path.read_text() == text
    assert retire(trust=True)
    (tmp_path / "n").mkdir()
    path.write_text(text)
    assert retire(trust=False)


def test_base_paths_of_another_machine_are_not_judged() -> None:
    check_base_paths(parse(config_with(LEGAL), "x"), "x")
    check_base_paths(parse(config_with(LEGAL.replace('"/n"', '"gs://b/n"')), "x"), "x")
