"""Requested versions and the next actions, decided without threads or files."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_server.common.errors import ServingError
from featurewire_server.models.policy import (
    VersionPolicy,
    aspired_versions,
    labels_of,
    models_of,
    next_actions,
)
from featurewire_server.models.servable import Servable, State
from tests.server.support import config


def policy(text: str) -> VersionPolicy:
    return text_format.Parse(text, VersionPolicy())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", [7]),
        ("latest {}", [7]),
        ("latest { num_versions: 2 }", [5, 7]),
        ("latest { num_versions: 9 }", [1, 5, 7]),
        ("all {}", [1, 5, 7]),
        ("specific { versions: 5 versions: 1 versions: 4 }", [1, 5]),
        ("specific {}", []),
    ],
)
def test_a_policy_chooses_among_the_versions_present(text: str, wanted: list[int]) -> None:
    assert aspired_versions(policy(text), [5, 1, 7]) == wanted


def test_nothing_present_is_nothing_wanted() -> None:
    assert aspired_versions(policy("latest { num_versions: 3 }"), []) == []


def version_of(version: int, state: State, aspired: bool) -> Servable:
    return Servable(name="m", version=version, path=Path(), state=state, aspired=aspired)


def versions_of(*entries: tuple[int, str, bool]) -> list[Servable]:
    return [version_of(v, State[state], a) for v, state, a in entries]


def test_the_old_version_stays_until_the_new_one_is_available() -> None:
    assert next_actions(versions_of((1, "AVAILABLE", False), (2, "START", True))) == ([2], [])
    assert next_actions(versions_of((1, "AVAILABLE", False), (2, "LOADING", True))) == ([], [])
    assert next_actions(versions_of((1, "AVAILABLE", False), (2, "AVAILABLE", True))) == ([], [1])


def test_the_old_version_stays_when_the_new_one_has_failed() -> None:
    assert next_actions(versions_of((1, "AVAILABLE", False), (2, "END", True))) == ([], [])


def test_of_several_old_versions_only_the_newest_stays() -> None:
    found = versions_of((1, "AVAILABLE", False), (2, "AVAILABLE", False), (3, "LOADING", True))
    assert next_actions(found) == ([], [1])


def test_everything_goes_when_nothing_is_wanted() -> None:
    assert next_actions(versions_of((1, "AVAILABLE", False), (2, "AVAILABLE", False))) == (
        [],
        [1, 2],
    )


def test_new_versions_load_newest_first() -> None:
    assert next_actions(versions_of((1, "START", True), (2, "START", True))) == ([2, 1], [])


@given(
    st.lists(
        st.builds(version_of, st.integers(1, 6), st.sampled_from(State), st.booleans()),
        unique_by=lambda servable: servable.version,
    )
)
def test_a_model_that_is_wanted_and_available_stays_available(versions: list[Servable]) -> None:
    _, unload = next_actions(versions)
    available = {v.version for v in versions if v.state is State.AVAILABLE}
    if available and any(v.aspired for v in versions):
        assert available - {*unload}


@pytest.mark.parametrize(
    ("models", "text"),
    [
        (
            ('name: "m" base_path: "/a"', 'name: "m" base_path: "/b"'),
            "Illegal to list model m multiple times in config list",
        ),
        (
            ('name: "m" base_path: "a"',),
            "Expected model m to have an absolute path or URI; got base_path()=a",
        ),
        (
            ('name: "m" base_path: "gs://b/m"',),
            "Model m: gs://b/m is not in the local file system; only local paths can be served",
        ),
        (('base_path: "/a"',), "Every model in the config list needs a name"),
        (
            ('name: "m" base_path: "/a" model_type: TENSORFLOW',),
            "Illegal setting both ModelServerConfig::model_type (deprecated) "
            "and ModelServerConfig::model_platform.",
        ),
    ],
)
def test_illegal_configs_are_refused(models: tuple[str, ...], text: str) -> None:
    with pytest.raises(ServingError) as caught:
        models_of(config(*models))
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {},
            "Illegal setting neither ModelServerConfig::model_type (deprecated) "
            "nor ModelServerConfig::model_platform.",
        ),
        ({"model_type": 2}, "ModelServerConfig::model_type choice 2 not supported."),
        ({"model_platform": "caffe"}, "Model m requests unsupported platform caffe"),
    ],
)
def test_an_illegal_platform_gets_tensorflow_servings_text(fields: dict, text: str) -> None:
    made = ModelServerConfig()
    made.model_config_list.config.add(name="m", base_path="/m", **fields)
    with pytest.raises(ServingError) as caught:
        models_of(made)
    assert caught.value.message == text


def test_the_deprecated_model_type_is_enough() -> None:
    made = ModelServerConfig()
    made.model_config_list.config.add(name="m", base_path="/m", model_type=1)
    assert [*models_of(made)] == ["m"]


LABELLED = 'name: "m" base_path: "/a" version_labels { key: "stable" value: 2 }'


def labels(available: list[int], in_use: dict, allow: bool):
    return labels_of(
        models_of(config(LABELLED)),
        available={"m": available},
        in_use=in_use,
        allow_unavailable=allow,
    )


def test_a_label_goes_to_an_available_version() -> None:
    assert labels([1, 2], {"m": {"stable": 1}}, False) == {"m": {"stable": 2}}


def test_a_label_on_an_unavailable_version_is_refused() -> None:
    with pytest.raises(ServingError) as caught:
        labels([1], {}, False)
    assert caught.value.message == (
        "Request to assign label to version 2 of model m, "
        "which is not currently available for inference"
    )


def test_the_flag_lets_only_unused_labels_name_an_unavailable_version() -> None:
    assert labels([], {}, True) == {"m": {"stable": 2}}
    assert labels([], {"m": {"stable": 2}}, True) == {"m": {"stable": 2}}
    with pytest.raises(ServingError, match="not currently available"):
        labels([1], {"m": {"stable": 1}}, True)
