"""The config in a ConfigMap, with the official client and an imitation of the API server."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurewire import ConfigError
from featurewire._cli.main import run
from featurewire_rollout import ConfigFileError, ConflictError
from featurewire_rollout.store.config_map import ConfigMapStore
from featurewire_rollout.store.config_store import open_store
from tests.rollout.api_server import TOKEN, ApiServer
from tests.rollout.stack import Stack
from tests.support.waiting import wait_until

NAME = "configmap:ml/models/models.config"
LEASE = ("leases", "ml", "featurewire-rollout-models")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ApiServer(tmp_path) as server:
        server.put("configmaps", "ml", "models", data={"models.config": "old", "other": "kept"})
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


@pytest.fixture
def store(api: ApiServer) -> ConfigMapStore:  # noqa: ARG001 - the store reads from it
    return ConfigMapStore(NAME, patience=2.0, write_patience=2.0, lease_seconds=1)


def data(api: ApiServer) -> dict[str, str]:
    return api.objects[("configmaps", "ml", "models")]["data"]


def test_a_write_changes_the_key_and_nothing_else(api: ApiServer, store: ConfigMapStore) -> None:
    assert store.read() == "old"
    store.write("new", expected="old")
    assert data(api) == {"models.config": "new", "other": "kept"}
    assert store.read() == "new"


def test_the_second_writer_is_told_and_changes_nothing(
    api: ApiServer, store: ConfigMapStore
) -> None:
    with pytest.raises(
        ConflictError, match=f"{NAME} was changed by another writer in the meantime"
    ):
        store.write("new", expected="older")
    # A change between read and write: the API server refuses the old resourceVersion.
    api.before["patch configmaps"] = lambda: api.change("models", "models.config", "theirs")
    with pytest.raises(ConflictError, match="changed by another writer"):
        store.write("new", expected="old")
    assert data(api)["models.config"] == "theirs"


def test_a_conflict_about_another_key_is_none(api: ApiServer, store: ConfigMapStore) -> None:
    api.before["patch configmaps"] = lambda: api.change("models", "other", "changed")
    store.write("new", expected="old")
    assert data(api) == {"models.config": "new", "other": "changed"}


@pytest.mark.parametrize("word", ["503", "drop", "lose"])
def test_an_api_server_that_is_away_for_a_moment_is_asked_again(
    api: ApiServer, store: ConfigMapStore, word: str
) -> None:
    def once(verb: str) -> None:
        api.faults.append(lambda asked, _resource: word if asked == verb else None)

    once("get")
    assert store.read() == "old"
    once("patch")
    store.write("new", expected="old")
    assert data(api)["models.config"] == "new"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda api: api.forbidden.add(("get", "configmaps")), r"cannot get .*\(403\); grant it"),
        (
            lambda api: api.objects.clear(),
            r"not found \(404\); create it: kubectl create configmap",
        ),
        (lambda api: setattr(api, "token", "another"), r"\(401\): the token may have expired"),
        (
            lambda api: api.put("configmaps", "ml", "models", data={"models": "x"}),
            "has no key models.config; it has: models",
        ),
        (lambda api: api.put("configmaps", "ml", "models"), "it has: none"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    api: ApiServer, store: ConfigMapStore, spoil, reason: str
) -> None:
    spoil(api)
    with pytest.raises(ConfigFileError, match=reason) as caught:
        store.read()
    assert str(caught.value).startswith(f"cannot read {NAME}: ")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_written_is_one_line(api: ApiServer, store: ConfigMapStore) -> None:
    api.forbidden.add(("patch", "configmaps"))
    with pytest.raises(
        ConfigFileError, match=r'cannot write .* cannot patch resource "configmaps"'
    ):
        store.write("new", expected="old")
    api.forbidden.clear()
    api.objects[("configmaps", "ml", "models")]["immutable"] = True
    with pytest.raises(ConfigFileError, match=r"says 422: .*immutable"):
        store.write("new", expected="old")
    assert data(api)["models.config"] == "old"


def test_an_api_server_that_is_down_is_named(tmp_path: Path, monkeypatch) -> None:
    with ApiServer(tmp_path) as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
    with pytest.raises(
        ConfigFileError, match=rf"at https://127.0.0.1:{server.port} does not answer"
    ):
        ConfigMapStore(NAME, patience=0.1).read()


def test_an_authority_that_is_not_the_servers_is_named(api: ApiServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    api.ca.write_bytes(ApiServer(other).ca.read_bytes())
    with pytest.raises(ConfigFileError, match="CERTIFICATE_VERIFY_FAILED"):
        ConfigMapStore(NAME, patience=0.1).read()


def test_no_access_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigFileError, match=r"not in a pod.*; set KUBECONFIG"):
        open_store(NAME).read()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigFileError, match=rf"no access to Kubernetes \({tmp_path}/none\)"):
        open_store(NAME).read()
    for text in ("configmap:", "configmap:ml/models", "configmap:ml//x", "configmap:a/b/c/d"):
        with pytest.raises(ConfigError, match="is not configmap:NAMESPACE/NAME/KEY"):
            open_store(text)


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(ConfigFileError, match=r"pip install 'featurewire-rollout\[kubernetes\]'"):
        open_store(NAME).read()


def test_the_command_ends_with_one_line(api: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    api.forbidden.add(("get", "configmaps"))
    command = ["rollout", "retire", "--config", NAME, "--server", "127.0.0.1:1", "--model", "tiny"]
    assert run(command) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"featurewire rollout: cannot read {NAME}: configmaps ")
    assert said.err.count("\n") == 1


def test_in_a_pod_the_service_account_is_used(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.config import incluster_config

    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(api.ca))
    store = ConfigMapStore(NAME)
    store.write("new", expected="old")
    assert store.read() == "new"


def test_the_lease_names_its_holder_to_a_second_operator(
    api: ApiServer, store: ConfigMapStore
) -> None:
    other = ConfigMapStore(NAME, patience=2.0, write_patience=2.0, lease_seconds=1)
    with (
        store.lock("alice"),
        pytest.raises(ConflictError, match="is being changed by alice"),
        other.lock("bob"),
    ):
        pass
    with other.lock("bob"):  # alice has released it
        assert api.objects[LEASE]["spec"]["holderIdentity"] == "bob"
    assert "holderIdentity" not in api.objects[LEASE]["spec"]


def test_a_lease_is_renewed_while_it_is_held(api: ApiServer, store: ConfigMapStore) -> None:
    renewed = threading.Event()
    with store.lock("alice"):
        api.before["patch leases"] = renewed.set
        assert renewed.wait(60)


def test_a_dead_operators_lease_is_taken_once_it_has_run_out(
    api: ApiServer, store: ConfigMapStore
) -> None:
    long_ago = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    api.put(
        *LEASE, spec={"holderIdentity": "dead", "renewTime": long_ago, "leaseDurationSeconds": 1}
    )
    with store.lock("bob"):
        assert api.objects[LEASE]["spec"]["holderIdentity"] == "bob"
        assert api.objects[LEASE]["spec"]["leaseTransitions"] == 1


def test_a_holder_whose_clock_is_wrong_is_seen_to_live(
    api: ApiServer, store: ConfigMapStore
) -> None:
    def renew(minute: int) -> None:
        stamp = f"2001-01-01T00:{minute:02}:00.000000Z"
        api.put(*LEASE, spec={"holderIdentity": "slow clock", "renewTime": stamp})

    renew(0)
    looks = iter(range(1, 60))

    def look() -> None:
        renew(next(looks))
        api.before["get leases"] = look

    api.before["get leases"] = look
    with pytest.raises(ConflictError, match="slow clock"), store.lock("bob"):
        pass


def test_whoever_lost_the_lease_does_not_write(api: ApiServer, store: ConfigMapStore) -> None:
    def is_refused() -> bool:
        try:
            store.write("new", expected="old")
        except ConflictError as error:
            assert "changed by bob" in str(error)  # noqa: PT017
            return True
        api.change("models", "models.config", "old")  # Alice has not read the Lease yet
        return False

    with store.lock("alice"):
        api.put(*LEASE, spec={"holderIdentity": "bob"})
        wait_until(is_refused)
        assert data(api)["models.config"] == "old"
    assert api.objects[LEASE]["spec"]["holderIdentity"] == "bob"


def test_a_lease_that_is_forbidden_is_one_line(api: ApiServer, store: ConfigMapStore) -> None:
    api.forbidden.add(("create", "leases"))
    with (
        pytest.raises(ConfigFileError, match=r'cannot lock .* cannot create resource "leases"'),
        store.lock("alice"),
    ):
        pass


def test_a_config_map_rollout_reaches_replicas_before_their_file_does(
    api: ApiServer, tmp_path: Path, tiny_model: Path
) -> None:
    stack = Stack(tmp_path, tiny_model)
    api.put("configmaps", "ml", "models", data={"models.config": stack.config.read_text()})
    stack.publish(2)
    try:
        for server in stack.servers:
            server.start()
        with stack.rollout(config=NAME) as rollout:
            assert rollout.start(2).phase.name == "on trial"
            done = rollout.promote(accept_new_space=True)
            assert [dict(each.labels) for each in done.fleet.replicas] == [
                {"stable": 2, "canary": 2, "previous": 1}
            ] * 2
        assert "canary" not in stack.config.read_text()
        stack.config.write_text(data(api)["models.config"])  # like kubelet, a minute later
        stack.servers[0].kill()
        stack.servers[0].start()
        with stack.rollout(config=NAME) as rollout:
            assert rollout.status().phase.differences == ()
            assert rollout.retire().fleet.available_everywhere() == {2}
        assert api.objects[LEASE]["spec"].get("holderIdentity") is None
    finally:
        for server in stack.servers:
            if server.process is not None:
                server.stop()
