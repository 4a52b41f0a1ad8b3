"""The plan of each step, decided from plain values."""

from __future__ import annotations

import pytest

from featurewire import VersionStatus
from featurewire_rollout import FleetError, RefusedError, SpaceError
from featurewire_rollout.decide.config_mismatch import config_mismatch
from featurewire_rollout.decide.entry import Entry
from featurewire_rollout.decide.phase import phase_of
from featurewire_rollout.decide.plan import (
    kept_by_labels,
    plan_promote,
    plan_retire,
    plan_rollback,
    plan_start,
)
from featurewire_rollout.decide.spaces import check_space
from featurewire_rollout.decide.view import FleetView, Manifest, ReplicaView


def entry(*versions: int, **labels: int) -> Entry:
    return Entry(versions=versions, labels=labels)


def fleet(*versions: int, **labels: int) -> FleetView:
    states = {number: VersionStatus(version=number, state="AVAILABLE") for number in versions}
    return FleetView(replicas=[ReplicaView(address="a", versions=states, labels=labels)])


REST, TRIAL = entry(1, stable=1, canary=1), entry(1, 2, stable=1, canary=2)
PROMOTED = entry(1, 2, stable=2, canary=2, previous=1)
BACK = entry(1, 2, stable=1, canary=1)


def test_the_whole_way_and_back() -> None:
    goal = plan_start(REST, fleet(1), 2)
    assert goal.versions == (1, 2)
    assert goal.labels == {"stable": 1, "canary": 1}
    assert plan_promote(TRIAL, None).matches(PROMOTED)
    assert plan_rollback(PROMOTED, None).matches(BACK)
    assert plan_rollback(TRIAL, None).matches(BACK)
    assert plan_retire(PROMOTED, None).matches(entry(2, stable=2, canary=2))
    assert plan_retire(BACK, None).matches(REST)


def test_retire_ends_a_rollout_though_a_label_keeps_a_version() -> None:
    """Otherwise `start` would require `retire`, and `retire` would do nothing."""
    labelled = entry(1, 2, stable=2, canary=2, previous=1, blue=1, green=1)
    left = entry(1, 2, stable=2, canary=2, blue=1, green=1)
    for version in (None, 1):
        goal = plan_retire(labelled, version)
        assert goal.matches(left)
        assert goal.unloaded == ()
        assert kept_by_labels(goal) == [
            "version 1 stays loaded: your labels blue and green point to it"
        ]
    assert plan_start(left, fleet(1, 2), 3).versions == (1, 2, 3)
    assert plan_retire(left, None).matches(left)


def test_a_step_that_is_done_asks_for_what_is_there() -> None:
    assert plan_promote(PROMOTED, 2).matches(PROMOTED)
    assert plan_rollback(BACK, None).matches(BACK)
    assert plan_retire(REST, None).matches(REST)
    assert plan_start(TRIAL, fleet(1, 2), 2).matches(TRIAL)


def test_the_first_rollout_unloads_nothing_and_keeps_others_labels() -> None:
    latest = Entry(versions=None, labels={"blue": 3}, policy="latest")
    goal = plan_start(latest, fleet(3, 4), 5)
    assert goal.versions == (3, 4, 5)
    assert goal.labels == {"blue": 3, "stable": 4}


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda: plan_start(REST, fleet(1), 1), "stable already"),
        (lambda: plan_start(TRIAL, fleet(1, 2), 3), "version 2 is on trial"),
        (lambda: plan_start(PROMOTED, fleet(1, 2), 3), "`retire` it first"),
        (lambda: plan_start(PROMOTED, fleet(1, 2), 1), "`rollback` returns to it"),
        (lambda: plan_start(Entry(versions=None), fleet(2), 2), "so no other can become stable"),
        (lambda: plan_promote(REST, None), "no version is on trial"),
        (lambda: plan_promote(TRIAL, 3), "version 3 is not on trial, 2 is"),
        (lambda: plan_rollback(REST, 4), "version 4 is not loaded"),
        (lambda: plan_rollback(Entry(versions=None), None), "no rollout is under way"),
        (lambda: plan_retire(TRIAL, None), "nothing to unload"),
        (lambda: plan_retire(TRIAL, 1), "stable would point to nothing"),
        (lambda: plan_retire(TRIAL, 2), "canary would point to nothing"),
        (lambda: plan_retire(entry(1, 2, stable=2, blue=1), 1), "blue would point to nothing"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(step, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        step()


@pytest.mark.parametrize(
    ("config", "name", "following"),
    [
        (REST, "at rest", "start"),
        (TRIAL, "on trial", "check"),
        (PROMOTED, "promoted", "retire"),
        (BACK, "loaded", "start --version 2"),
        (Entry(versions=None), "none", "start"),
    ],
)
def test_the_status_names_the_phase_and_the_next_command(config, name, following) -> None:
    phase = phase_of(config, fleet(1, 2, **dict(config.labels)))
    assert phase.name == name
    assert phase.next[0].startswith(following)
    assert phase.differences == ()
    late = phase_of(PROMOTED, fleet(1, 2, stable=1, canary=2, previous=1))
    assert late.differences == ("a: stable is 1, not 2",)
    assert late.next == ("promote", "rollback")


def spaces(*pairs: tuple[str | None, str | None]) -> FleetView:
    return FleetView(
        replicas=[
            ReplicaView(
                address=str(place),
                manifests={
                    1: Manifest(digest=f"{old}", vector_space=old),
                    2: Manifest(digest=f"{new}", vector_space=new),
                },
            )
            for place, (old, new) in enumerate(pairs)
        ]
    )


def test_only_a_known_equal_space_needs_no_consent() -> None:
    assert "share" in check_space(spaces(("x", "x")), 1, 2)
    for pair in (("x", "y"), (None, "y"), ("x", None)):
        with pytest.raises(SpaceError, match="--accept-new-space"):
            check_space(spaces(pair), 1, 2)
        assert check_space(spaces(pair), 1, 2, accept_new_space=True)
    with pytest.raises(FleetError, match="different vector spaces as version 2"):
        check_space(spaces(("x", "x"), ("x", "y")), 1, 2, accept_new_space=True)
    assert spaces(("x", "x"), ("x", "y")).mixed_versions() == {2: {"x": ["0"], "y": ["1"]}}


def test_a_space_named_under_another_scheme_may_be_the_same() -> None:
    old, new = "0" * 32, "graph-1-" + "0" * 32
    with pytest.raises(SpaceError, match=r"weights-1 and graph-1.*check` measures it"):
        check_space(spaces((old, new)), 1, 2)
    assert check_space(spaces((old, new)), 1, 2, accept_new_space=True)


@pytest.mark.parametrize(
    ("config", "served", "reason"),
    [
        (REST, fleet(3, stable=3), r"a has stable at version 3, the config lists version 1"),
        (Entry(versions=None), fleet(3, stable=3), "the config has no label stable"),
        (REST, fleet(3), "a knows version 3, the config has stable at version 1"),
        (REST, fleet(), "a knows no version of the model"),
        # Interrupted steps, restarted replicas, and a first rollout.
        (REST, fleet(1), ""),
        (TRIAL, fleet(1, stable=1, canary=1), ""),
        (PROMOTED, fleet(1, 2, stable=1, canary=2), ""),
        (BACK, fleet(1, 2, stable=2, canary=2, previous=1), ""),
        (entry(2, stable=2, canary=2), fleet(1, 2, stable=2, canary=2, previous=1), ""),
        (Entry(versions=None), fleet(3), ""),
        (Entry(versions=None, labels={"stable": 2}), fleet(2, 3, stable=2), ""),
    ],
)
def test_a_config_that_the_replicas_do_not_read_is_noticed(config, served, reason: str) -> None:
    found = config_mismatch(config, served, "models.config")
    assert (reason in found) if reason else found == ""
    one_fits = FleetView(replicas=[*served.replicas, *fleet(1, 2, stable=1).replicas])
    assert config_mismatch(PROMOTED, one_fits, "models.config") == ""
    assert (phase_of(config, served).name == "wrong config") == bool(reason)
