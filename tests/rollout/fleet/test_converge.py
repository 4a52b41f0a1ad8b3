"""Waiting for replicas, decided from the views of scripted ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_rollout import FleetError, RefusedError, Rollout, RolloutConfig
from featurewire_rollout.decide.plan import Goal
from featurewire_rollout.decide.view import FleetView, ReplicaView
from featurewire_rollout.fleet import converge
from featurewire_rollout.fleet.fleet import UNANSWERED
from tests.rollout.scripted import Scripted, shows

GOAL = Goal(versions=(1, 2), labels={"stable": 1}, loaded=(2,))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "POLL_SECONDS", 0.001)


def wait_for(fleet: Scripted, seconds: float = 0.2, reload: bool = True) -> FleetView:
    patience = converge.Patience(seconds=seconds, reload=reload)
    config = ModelServerConfig()
    return converge.converge(fleet, config, GOAL, patience, print, loading=2)


def test_a_replica_that_loads_and_goes_back_reads_another_config() -> None:
    old = shows((1, "AVAILABLE"), stable=1)
    loading = shows((1, "AVAILABLE"), (2, "LOADING"), stable=1)
    unloaded = shows((1, "AVAILABLE"), (2, "END"), stable=1)
    with pytest.raises(FleetError, match="went back, so it reads another config than --config"):
        wait_for(Scripted(old, old, loading, unloaded))
    with pytest.raises(FleetError) as caught:
        wait_for(Scripted(old, old, loading))
    assert "went back" not in str(caught.value)


def test_a_replica_that_comes_back_after_a_restart_did_not_go_back() -> None:
    away = ReplicaView(address="a:1", error="connection refused")
    there = shows((1, "AVAILABLE"), (2, "AVAILABLE"))
    with pytest.raises(FleetError) as caught:
        wait_for(Scripted(there, there, away, shows((1, "AVAILABLE"))))
    assert "went back" not in str(caught.value)


def test_a_label_that_the_config_does_not_have_is_waited_for_to_go() -> None:
    there = ((1, "AVAILABLE"), (2, "AVAILABLE"))
    fleet = Scripted(*[shows(*there, stable=1, canary=2)] * 3, shows(*there, stable=1))
    wait_for(fleet, seconds=60)
    assert fleet.reloads == 1
    with pytest.raises(FleetError, match="canary is still 2"):
        wait_for(Scripted(shows(*there, stable=1, canary=2)))


def test_replicas_that_poll_get_no_reload() -> None:
    late = shows((1, "AVAILABLE"), stable=1)
    done = shows((1, "AVAILABLE"), (2, "AVAILABLE"), stable=1)
    fleet = Scripted(late, late, late, done)
    wait_for(fleet, seconds=60, reload=False)
    assert fleet.reloads == 0
    fleet = Scripted(late, late, late, done)
    wait_for(fleet, seconds=60)
    assert fleet.reloads == 1


@pytest.mark.parametrize(
    "said",
    [
        "a:1, model 'm': Illegal setting neither model_type(deprecated) nor model_platform.",
        "a:1, model 'm': Illegal setting both model_type(deprecated) and model_platform.",
        "a:1, model 'm': Illegal to change a model's platform. For model m platform was ten",
        UNANSWERED,
    ],
)
def test_a_replica_that_takes_no_config_is_to_be_restarted(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converge, "RELOAD_INTERVALS_SECONDS", (0.001,))
    fleet = Scripted(shows((1, "AVAILABLE"), stable=1), refusal=said)
    with pytest.raises(FleetError, match="restart the replica") as caught:
        wait_for(fleet, seconds=60)
    assert "a:1" in str(caught.value)
    assert fleet.reloads == (2 if said == UNANSWERED else 1)


def test_a_reload_refused_for_now_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "RELOAD_INTERVALS_SECONDS", (0.001,))
    fleet = Scripted(shows((1, "AVAILABLE"), stable=1), refusal="The server is shutting down")
    with pytest.raises(FleetError, match="its reload said: The server is shutting down"):
        wait_for(fleet)
    assert fleet.reloads > 2


OTHERS = """model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow"
  model_version_policy { specific { versions: 1 versions: 2 } }
  version_labels { key: "stable" value: 2 } version_labels { key: "canary" value: 2 }
  version_labels { key: "previous" value: 1 } } }
"""


@pytest.mark.parametrize("step", ["start", "promote", "rollback", "retire"])
def test_a_step_with_a_config_that_nobody_reads_is_refused(tmp_path: Path, step: str) -> None:
    path = tmp_path / "models.config"
    path.write_text(OTHERS)
    replica = shows((3, "AVAILABLE"), stable=3, canary=3)

    def rollout(**options: Any) -> Rollout:
        config = RolloutConfig(
            config=str(path), servers=["a:1"], model="m", timeout=0.05, **options
        )
        return Rollout(config, fleet=Scripted(replica))  # type: ignore[arg-type]

    arguments = (4,) if step == "start" else ()
    with rollout() as made:
        with pytest.raises(RefusedError, match=r"has stable at version 3, .* --trust-config"):
            getattr(made, step)(*arguments)
        assert made.status().phase.name == "wrong config"
    assert path.read_text() == OTHERS
    with rollout(trust_config=True) as made, pytest.raises((FleetError, RefusedError)) as caught:
        getattr(made, step)(*arguments)
    assert "--trust-config" not in str(caught.value)
