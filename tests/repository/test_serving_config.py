"""The configuration files are valid for TensorFlow Serving, and the stack is consistent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "serving_config"


def parsed(name: str, message):
    return text_format.Parse((CONFIG / name).read_text(), message)


def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_models_config_parses_with_tensorflow_servings_own_proto():
    from tensorflow_serving.config import model_server_config_pb2

    config = parsed("models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.name == "inception_resnet_v2"
    assert model.base_path.startswith("/")


def test_session_config_example_is_a_config_proto():
    from tensorflow.core.protobuf import config_pb2

    assert parsed("session.config.example", config_pb2.ConfigProto()).gpu_options.allow_growth


def test_batching_monitoring_and_tls_files_parse():
    from featurewire_exporter.cli.export import export_parser
    from featurewire_server._tfs import (
        monitoring_config_pb2,
        session_bundle_config_pb2,
        ssl_config_pb2,
    )

    for name in ("batching.config", "batching.gpu.config"):
        batching = parsed(name, session_bundle_config_pb2.BatchingParameters())
        assert batching.allowed_batch_sizes[-1] == batching.max_batch_size.value
        assert sorted(batching.allowed_batch_sizes) == list(batching.allowed_batch_sizes)
        # The warm-up records of a version have this size, and must fit.
        assert batching.max_batch_size.value >= export_parser().get_default("max_batch_size")
        # The dashboard looks for the queue under the model's name.
        assert (
            f'name: "{batching.thread_pool_name.value}"' in (CONFIG / "models.config").read_text()
        )
    assert parsed("monitoring.config", monitoring_config_pb2.MonitoringConfig()).prometheus_config
    assert parsed("tls.config.example", ssl_config_pb2.SSLConfig()).client_verify


SERVERS = ("serving-gpu", "serving-cpu", "serving-embedded")


def flags(service: str) -> dict[str, str]:
    return dict(flag.split("=", 1) for flag in compose()["services"][service]["command"])


@pytest.mark.parametrize("service", SERVERS)
def test_the_stack_takes_more_calls_than_two_full_batches(service):
    """TensorFlow Serving rejects calls beyond its threads; metadata calls also take one."""
    from featurewire_server._tfs.session_bundle_config_pb2 import BatchingParameters

    name = Path(flags(service)["--batching_parameters_file"]).name
    largest = parsed(name, BatchingParameters()).max_batch_size.value
    assert int(flags(service)["--grpc_max_threads"]) >= 2 * largest + 16


@pytest.mark.parametrize("service", SERVERS)
def test_the_stack_gives_up_a_broken_version_within_seconds(service):
    """A server gives up long before `featurewire rollout` does, and other versions do not wait."""
    from featurewire_rollout.config import RolloutConfig

    given = flags(service)
    pauses = int(given["--max_num_load_retries"]) * int(given["--load_retry_interval_micros"]) / 1e6
    assert 0 < pauses <= RolloutConfig(servers=[], model="m").timeout / 10
    assert int(given["--num_load_threads"]) > 1


@pytest.mark.parametrize("service", SERVERS)
def test_the_stack_has_room_for_a_rollout(service):
    """docs/operating.md has the memory of two versions during the load of a third."""
    limit = compose()["services"][service]["deploy"]["resources"]["limits"]["memory"]
    (gigabytes,) = re.fullmatch(r"\$\{SERVING_MEMORY:-(\d+)g\}", limit).groups()
    assert int(gigabytes) >= 6


@pytest.mark.parametrize("service", ["serving-gpu", "serving-cpu"])
def test_tensorflow_serving_gives_freed_memory_back(service):
    names = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
    environment = compose()["services"][service]["environment"]
    assert {name: environment[name] for name in names} == dict.fromkeys(names, "262144")


@pytest.mark.parametrize("profile", ["gpu", "cpu", "embedded"])
def test_each_stack_profile_starts_one_server_after_the_exporter(profile):
    services = compose()["services"]
    (server,) = [each for each in services.values() if profile in each.get("profiles", [])]
    assert server["depends_on"] == {"exporter": {"condition": "service_completed_successfully"}}
    assert "models:/models:ro" in server["volumes"]


def test_the_embedded_server_knows_every_flag_that_the_stack_passes():
    from featurewire_server.command import serve_parser

    command = compose()["services"]["serving-embedded"]["command"]
    arguments = vars(serve_parser().parse_args(command))
    assert arguments["model_config_file"] == "/serving_config/models.config"


def test_the_stack_mounts_every_file_that_a_flag_names():
    for flag in compose()["services"]["serving-gpu"]["command"]:
        value = flag.partition("=")[2]
        if value.startswith("/serving_config/"):
            assert (ROOT / value.lstrip("/")).is_file()
