"""Reading manifests of every release, and checking the files of versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from featurewire import manifest
from featurewire.manifest import files, network, spaces

ABOUT: dict[str, Any] = {
    "vector_space": "graph-1-" + "a" * 32,
    "vector_spaces": [
        {"vector_space": "graph-1-" + "a" * 32, "signature": "serving_default", "bridged": False},
        {
            "vector_space": "b" * 32,
            "signature": "bridge_b",
            "dimension": 8,
            "module": "https://hub.example/b",
            "bridged": True,
            "retention": {"recall_at_1": 0.9, "recall_at_10": 0.99, "index": 300},
        },
    ],
}


def publish(version: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Write a version with the manifest in its graph, and with digests."""
    (version / "assets.extra").mkdir(parents=True)
    (version / "variables").mkdir()
    (version / "variables" / "weights").write_bytes(b"weights")
    (version / files.GRAPH).write_bytes(b"before" + b"after")
    digests = {name: files.digest_of(version / name) for name in ("variables/weights", files.GRAPH)}
    sealed = about | {"files": digests}
    (version / files.GRAPH).write_bytes(b"before" + files.text_in_graph(sealed) + b"after")
    (version / manifest.FILE).write_text(json.dumps(sealed))
    return sealed


def test_a_version_without_a_manifest_has_none(tmp_path):
    assert manifest.read(tmp_path) is None
    assert manifest.read(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{", "is not JSON"), ("[1]", "is not a JSON object"), (b"\xff\xfe\xff", "is not JSON")],
)
def test_a_text_that_is_not_a_manifest_is_refused(text, problem):
    with pytest.raises(manifest.ManifestError, match=problem):
        manifest.parse(text)


def test_bridges_are_listed_by_the_space_they_lead_to():
    assert spaces.vector_space(ABOUT) == "graph-1-" + "a" * 32
    (bridge,) = spaces.bridges(ABOUT).values()
    assert list(spaces.bridges(ABOUT)) == ["b" * 32]
    assert (bridge.signature, bridge.dimension, bridge.index) == ("bridge_b", 8, 300)
    assert (bridge.module, bridge.recall_at_1, bridge.recall_at_10) == (
        *("https://hub.example/b", 0.9, 0.99),
    )


@pytest.mark.parametrize(
    "about",
    [
        None,
        {},
        {"vector_space": 3, "vector_spaces": {"bridged": True}},
        {"vector_space": "", "vector_spaces": [None, 7, {}, {"bridged": "yes"}]},
        {"vector_spaces": [{"bridged": True}, {"bridged": True, "vector_space": None}]},
    ],
)
def test_fields_of_another_type_count_as_left_out(about):
    assert spaces.vector_space(about) is None
    assert spaces.bridges(about) == {}


def test_a_bridge_that_says_little_is_still_a_bridge():
    about = {"vector_spaces": [{"vector_space": "b", "bridged": True, "retention": "good"}]}
    assert spaces.bridges(about) == {"b": spaces.Bridge(vector_space="b")}


def test_whole_files_are_what_their_digests_say(tmp_path):
    about = publish(tmp_path, ABOUT)
    assert manifest.read(tmp_path) == about
    assert files.changed_file(tmp_path, about) is None


@pytest.mark.parametrize("name", ["variables/weights", files.GRAPH])
def test_a_changed_or_missing_file_is_named(tmp_path, name):
    about = publish(tmp_path, ABOUT)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"!")
    assert files.changed_file(tmp_path, about) == name
    (tmp_path / name).unlink()
    assert files.changed_file(tmp_path, about) == name


def test_a_manifest_without_digests_accuses_no_file(tmp_path):
    publish(tmp_path, ABOUT)
    assert files.changed_file(tmp_path, ABOUT) is None


def test_the_networks_are_those_with_a_file():
    files = {"image_feature_vector": "assets.extra/network.pb"}
    assert network.networks({"networks": files | {"other": None}}) == files
    for about in ({}, {"networks": None}, {"networks": ["a"]}):
        assert network.networks(about) == {}


def test_a_network_in_8_bits_is_known_by_both_its_files(tmp_path):
    (tmp_path / "net.xml").write_bytes(b"layers")
    (tmp_path / "net.bin").write_bytes(b"weights")
    about = {"network": "net.xml", "digest": network.network_digest(tmp_path / "net.xml")}
    found = network.int8({"int8": about})
    assert found is not None
    assert found.any_processor
    assert found.is_intact(tmp_path)
    (tmp_path / "net.bin").write_bytes(b"other")
    assert not found.is_intact(tmp_path)
    assert network.int8({"int8": about | {"any_processor": False}}).any_processor is False
    assert network.int8({}) is network.int8({"int8": True}) is None


@pytest.mark.parametrize(
    ("line", "found"),
    [("flags\t: fpu avx512_vnni", True), ("flags\t: fpu avx2", False), ("", False)],
)
def test_the_processor_says_whether_it_has_vnni(tmp_path, line, found):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert network.has_vnni(tmp_path / "cpuinfo") is found
    assert not network.has_vnni(tmp_path / "none")
