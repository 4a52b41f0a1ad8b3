"""Parts without I/O: window, backoff, budget, rotation, errors, configuration."""

from __future__ import annotations

# Some tests pass arguments with a wrong type or name, which mypy would report.
# mypy: disable-error-code="arg-type, call-arg, dict-item, list-item"
import copy
import dataclasses
import itertools
import pickle
from pathlib import Path

import grpc
import pytest

import featurewire
from featurewire import ChannelConfig, RetryConfig, StreamConfig, TLSConfig
from featurewire._rpc.failures import from_rpc_error
from featurewire._rpc.retry import RetryBudget, backoff
from featurewire._rpc.rotation import Rotation
from featurewire._rpc.stats import Latencies
from featurewire._rpc.target import split_target


def test_backoff_is_random_below_a_growing_bound():
    config = RetryConfig(initial_backoff=1.0, backoff_multiplier=2.0, max_backoff=5.0)
    for failures, bound in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (5000, 5.0)]:
        waits = [backoff(config, failures) for _ in range(500)]
        assert 0 <= min(waits) < bound * 0.1
        assert bound * 0.9 < max(waits) <= bound


def test_the_budget_is_spent_by_retries_and_earned_by_successes():
    budget = RetryBudget(RetryConfig(budget=2, budget_ratio=0.5))
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.succeeded()
    assert not budget.spend()
    budget.succeeded()
    assert budget.spend()
    for _ in range(100):
        budget.succeeded()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_servers_take_turns_and_one_that_fails_rests():
    rotation = Rotation("abc")
    assert [rotation.pick(0.0) for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    rotation.failed(1, 0.0)
    assert 1 not in {rotation.pick(0.1) for _ in range(6)}
    assert 1 in {rotation.pick(5.0) for _ in range(6)}
    rotation.failed(0, 6.0)
    rotation.failed(2, 6.0)
    rotation.failed(1, 6.0)
    assert rotation.pick(6.0) in {0, 2}  # all servers rest, so take the one with the shortest rest
    rotation.succeeded(1)
    assert {rotation.pick(6.1) for _ in range(4)} == {1}


def test_a_retry_goes_to_a_server_that_was_not_tried():
    rotation = Rotation("abc")
    assert {rotation.pick(0.0, avoid={0, 1}) for _ in range(5)} == {2}
    assert rotation.pick(0.0, avoid={0, 1, 2}) in {0, 1, 2}
    assert Rotation("a").pick(0.0, avoid={0}) == 0


class RpcError(grpc.RpcError):
    def __init__(self, code, details):
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


EXPECTED = {
    "CANCELLED": featurewire.ServerUnavailableError,
    "UNKNOWN": featurewire.ServerError,
    "INVALID_ARGUMENT": featurewire.InvalidRequestError,
    "DEADLINE_EXCEEDED": featurewire.DeadlineExceededError,
    "NOT_FOUND": featurewire.ModelNotFoundError,
    "ALREADY_EXISTS": featurewire.ServerError,
    "PERMISSION_DENIED": featurewire.InvalidRequestError,
    "UNAUTHENTICATED": featurewire.InvalidRequestError,
    "RESOURCE_EXHAUSTED": featurewire.OverloadedError,
    "FAILED_PRECONDITION": featurewire.InvalidRequestError,
    "ABORTED": featurewire.ServerUnavailableError,
    "UNIMPLEMENTED": featurewire.ServerError,
    "INTERNAL": featurewire.ServerError,
    "UNAVAILABLE": featurewire.ServerUnavailableError,
    "DATA_LOSS": featurewire.ServerError,
    "OUT_OF_RANGE": featurewire.InvalidRequestError,
}


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code.name != "OK"], ids=lambda code: code.name
)
def test_every_grpc_code_has_its_error(code):
    cause = RpcError(code, "some text")
    error = from_rpc_error(cause, target="host:1", model="m")
    assert type(error) is EXPECTED[code.name]
    assert error.__cause__ is cause
    assert error.code == code.name
    assert "host:1" in str(error)
    assert "some text" in str(error)


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        ("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full",
         featurewire.OverloadedError),
        ("INVALID_ARGUMENT", "Unrecognized servable version label: x",
         featurewire.ModelNotFoundError),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (10 vs. 5)",
         featurewire.InvalidRequestError),
        ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", featurewire.OverloadedError),
        ("INTERNAL", "Received RST_STREAM with error code 2", featurewire.ServerUnavailableError),
        ("UNKNOWN", "Stream removed", featurewire.ServerUnavailableError),
    ],
)  # fmt: skip
def test_texts_of_the_server_decide_where_its_codes_do_not(code, text, error):
    cause = RpcError(grpc.StatusCode[code], text)
    assert type(from_rpc_error(cause, target="t", model="m")) is error


def test_a_server_out_of_threads_is_told_which_flag_to_set():
    cause = RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
    assert "--grpc_max_threads" in str(from_rpc_error(cause, target="t", model="m"))


@pytest.mark.parametrize(
    "text",
    [
        "Socket closed",
        "recvmsg:Connection reset by peer (104)",
        "sendmsg: Broken pipe (32)",
        "End of TCP stream",
        "unexpected end of file",
        "read: EOF",
    ],
)
def test_a_server_that_hangs_up_at_once_may_want_tls(text):
    cause = RpcError(grpc.StatusCode.UNAVAILABLE, f"last error: ipv4:10.0.0.1:1: {text}")
    options = {"target": "t", "model": "m", "answered": False}
    assert "if that port speaks TLS, set tls=" in str(from_rpc_error(cause, **options))
    assert "during the TLS handshake" in str(from_rpc_error(cause, tls=True, **options))


def test_a_text_that_only_holds_the_letters_eof_is_no_hang_up():
    cause = RpcError(grpc.StatusCode.UNAVAILABLE, "no route to geoffrey")
    assert "TLS" not in str(from_rpc_error(cause, target="t", model="m", answered=False))


def test_an_rpc_error_without_code_or_text_is_a_server_error():
    assert type(from_rpc_error(grpc.RpcError(), target="t", model="m")) is featurewire.ServerError


def test_an_image_error_survives_a_process_pool():
    error = pickle.loads(pickle.dumps(featurewire.ImageError("bad", reason="corrupt")))
    assert (str(error), error.reason) == ("bad", "corrupt")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RetryConfig(max_attempts=0), "max_attempts=0"),
        (lambda: RetryConfig(initial_backoff=-1), "initial_backoff=-1"),
        (lambda: RetryConfig(hedge_after=0), "hedge_after=0"),
        (lambda: RetryConfig(backoff_multiplier=0.5), "backoff_multiplier"),
        (lambda: RetryConfig(max_backoff=float("nan")), "max_backoff=nan"),
        (lambda: StreamConfig(images_per_request=0), "images_per_request=0"),
        (lambda: StreamConfig(images_per_request=2.5), "whole number"),
        (lambda: StreamConfig(in_flight=0), "in_flight=0"),
        (lambda: StreamConfig(patience="long"), "patience='long'"),
        (lambda: TLSConfig(cert=b"x"), "give both cert and key"),
        (lambda: TLSConfig(ca="ca.pem"), r"pathlib\.Path"),
        (lambda: TLSConfig(ca=Path("/no/such/ca.pem")).loaded(), r"cannot read /no/such/ca\.pem"),
        (lambda: ChannelConfig(compression="zip"), "gzip"),
        (lambda: ChannelConfig(metadata={"Team": "x"}), "lower-case"),
        (lambda: ChannelConfig(metadata={"team": b"x"}), "-bin"),
        (lambda: ChannelConfig(keepalive_time=0), "keepalive_time=0"),
        (lambda: ChannelConfig(token=7), "token"),
        (lambda: ChannelConfig(token=""), r"token=…\): the token is empty"),
        (lambda: ChannelConfig(token="t\n"), r"token=…\): the token contains '\\n'"),
        (lambda: ChannelConfig(token="schlüssel"), "the token contains 'ü'"),
        (lambda: ChannelConfig(token="Bearer t"), "the token contains ' '"),
        (lambda: ChannelConfig(metadata={"team": "Köln\r\n"}), r"value of team contains .*'ö'"),
        (lambda: ChannelConfig(metadata={"tëam": "x"}), "metadata=….*key 'tëam'"),
        (lambda: ChannelConfig(metadata={"": "x"}), "metadata=….*key ''"),
        (lambda: ChannelConfig(metadata={5: "x"}), "metadata=….*key 5"),
        (lambda: ChannelConfig(metadata={"t-bin": "x"}), "t-bin must be bytes"),
        (lambda: ChannelConfig(metadata=7), "metadata=….*pairs"),
        (lambda: ChannelConfig(options=[1]), "options=….*pairs"),
        (lambda: ChannelConfig(load_balancing=None), "load_balancing=None"),
        (lambda: TLSConfig(server_name=""), "server_name=''"),
        (lambda: featurewire.Client("host:1", model=""), "model=''"),
        (lambda: featurewire.Client("host:1", model="m", timeout=0), "timeout=0"),
        (lambda: featurewire.Client("host:1", model="m", version=1, label="x"), "not both"),
        (lambda: featurewire.Client("host:1", model="m", version="1"), "version='1'"),
        (lambda: featurewire.Client("host:1", model="m", version=1 << 63), "version=9223372036"),
        (lambda: featurewire.Client("host:1", model="m", label=5), "label=5"),
        (lambda: featurewire.Client("host:1", model="m", retry=3), "RetryConfig"),
        (lambda: featurewire.Client("http://host:1", model="m"), "give host:port without http://"),
        (lambda: featurewire.Client("host", model="m"), "host:port"),
        (lambda: featurewire.Client("host:99999", model="m"), "host:port"),
        (lambda: featurewire.Client("a:1,a:1", model="m"), "twice"),
        (lambda: featurewire.Client(8500, model="m"), "localhost:8500"),
        (lambda: featurewire.Client("far.example:1", model="m", channel=ChannelConfig(token="t")),
         "sent unencrypted"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_a_config_error_that_names_it(make, words):
    with pytest.raises(featurewire.ConfigError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RetryConfig(max_atempts=1), "RetryConfig.*'max_atempts'.*'max_attempts'?"),
        (lambda: StreamConfig(reader=1), "StreamConfig.*'reader'.*'readers'?"),
        (lambda: TLSConfig(certificate=b""), "TLSConfig.*it takes ca, cert, key, server_name"),
        (lambda: ChannelConfig(tokens="t"), "ChannelConfig.*'tokens'.*'token'?"),
        (lambda: featurewire.Client("h:1", model="m", timout=3), "Client.*'timout'.*'timeout'?"),
        (lambda: featurewire.AsyncClient("h:1", modell="m"), "AsyncClient.*'modell'.*'model'?"),
        (lambda: featurewire.Client("h:1", model="m", max_attempts=3),
         r"retry=RetryConfig\(max_attempts=…\)"),
        (lambda: featurewire.Client("h:1", model="m", token="t"),
         r"channel=ChannelConfig\(token=…\)"),
        (lambda: featurewire.Client("h:1", model="m", zzz=1), "it takes target, model, version"),
    ],
)  # fmt: skip
def test_a_misspelt_argument_is_named_with_the_nearest(make, words):
    with pytest.raises(featurewire.ConfigError, match=words) as caught:
        make()
    assert isinstance(caught.value, TypeError)


def test_every_config_can_be_hashed_copied_and_pickled():
    for config in (
        ChannelConfig(metadata={}),
        ChannelConfig(metadata={"team": "x"}, options=[("grpc.x", 1)], interceptors=[object]),
        RetryConfig(hedge_after=0.2),
        StreamConfig(readers=2),
        TLSConfig(ca=Path("ca.pem")),
    ):
        twins = [copy.deepcopy(config), pickle.loads(pickle.dumps(config))]
        twins.append(dataclasses.replace(config))
        assert {hash(config)} == {hash(twin) for twin in twins}
        assert all(twin == config for twin in twins)
    assert ChannelConfig(metadata={}) == ChannelConfig()
    assert ChannelConfig(metadata={"a": "b"}) == ChannelConfig(metadata=[("a", "b")])


def test_a_config_does_not_change_with_the_dict_it_was_made_from():
    metadata = {"team": "x"}
    config = ChannelConfig(metadata=metadata)
    metadata["team"] = "y\n"
    assert config.metadata_pairs() == [("team", "x")]


@pytest.mark.parametrize("kind", [ChannelConfig, RetryConfig, StreamConfig, TLSConfig])
def test_configs_are_frozen_and_keyword_only(kind):
    config = kind()
    field = dataclasses.fields(kind)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, field.name, 1)
    with pytest.raises(TypeError):
        kind(1)


def test_secrets_are_not_in_a_repr():
    assert "s3cret" not in repr(ChannelConfig(token="s3cret"))
    assert "s3cret" not in repr(TLSConfig(cert=b"c", key=b"s3cret"))


@pytest.mark.parametrize(
    ("target", "servers"),
    [
        ("localhost:8500", ["localhost:8500"]),
        ("a:1, b:2,10.0.0.3:3", ["a:1", "b:2", "10.0.0.3:3"]),
        ("[::1]:8500", ["[::1]:8500"]),
        ("dns:///a.example:8500", ["dns:///a.example:8500"]),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", ["ipv4:10.0.0.1:1,10.0.0.2:2"]),
        ("unix:/run/tf.sock", ["unix:/run/tf.sock"]),
        ("xds:///service", ["xds:///service"]),
    ],
)
def test_targets_of_every_kind(target, servers):
    assert split_target(target) == servers


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:1", True),
        ("127.0.0.9:1", True),
        ("[::1]:1", True),
        ("unix:/run/tf.sock", True),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", True),
        ("ipv6:[::1]:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("dns://10.0.0.1/far.example:1", False),
        ("xds:///localhost:1", False),
        ("far.example:1", False),
    ],
)
def test_a_token_goes_in_the_clear_to_this_machine_alone(target, local):
    config = ChannelConfig(token="t")
    if local:
        featurewire.Client(target, model="m", channel=config).close()
    else:
        with pytest.raises(featurewire.ConfigError, match="sent unencrypted"):
            featurewire.Client(target, model="m", channel=config)


def test_percentiles_are_right_within_a_tenth():
    latencies = Latencies()
    for number in range(1, 1001):
        latencies.add(number / 1000)
    latency = latencies.percentiles()
    for name, exact in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)]:
        assert exact <= latency[name] <= exact * 1.1
    assert latency["max"] == 1.0


def test_public_names_are_frozen():
    assert sorted(featurewire.__all__) == [
        "AsyncClient",
        "ChannelConfig",
        "Client",
        "ConfigError",
        "DeadlineExceededError",
        "Embedding",
        "EmbeddingBatch",
        "FeaturewireError",
        "ImageError",
        "InvalidRequestError",
        "ModelMetadata",
        "ModelNotFoundError",
        "ModelStatus",
        "OverloadedError",
        "ResponseError",
        "Result",
        "RetryConfig",
        "ServerError",
        "ServerUnavailableError",
        "Signature",
        "Stats",
        "StreamConfig",
        "StreamProgress",
        "TLSConfig",
        "TensorSpec",
        "VectorSpaceError",
        "VersionStatus",
        "__version__",
    ]
    for name in featurewire.__all__:
        assert getattr(featurewire, name) is not None
    assert set(featurewire.__all__) <= set(dir(featurewire))
    with pytest.raises(AttributeError, match="Clinet"):
        featurewire.Clinet  # noqa: B018


def test_every_error_is_in_the_tree_and_has_the_one_root():
    errors = [
        value
        for name in featurewire.__all__
        if isinstance(value := getattr(featurewire, name), type) and issubclass(value, Exception)
    ]
    assert len(errors) == 11
    tree = __import__("featurewire._errors", fromlist=["_errors"]).__doc__
    for error, _ in itertools.product(errors, [None]):
        assert issubclass(error, featurewire.FeaturewireError)
        assert error.__name__ in tree
    assert issubclass(featurewire.DeadlineExceededError, TimeoutError)
