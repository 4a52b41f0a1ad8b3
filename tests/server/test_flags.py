"""Flags are parsed like in tensorflow_model_server, and documented with their defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from featurewire_server.flags import FLAGS, channel_arguments, parse, warnings

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
UPSTREAM = """
allow_version_labels_for_unavailable_models batching_parameters_file enable_batching
enable_grpc_healthcheck_service enable_model_warmup enable_per_model_batching_parameters
enable_profiler enable_serialization_as_tensor_content enable_signature_method_name_check
file_system_poll_wait_seconds flush_filesystem_caches grpc_channel_arguments grpc_max_threads
grpc_socket_path load_retry_interval_micros max_num_load_retries mixed_precision model_base_path
model_config_file model_config_file_poll_wait_seconds model_name monitoring_config_file
num_load_threads num_request_iterations_for_warmup num_tflite_interpreters_per_pool
num_tflite_pools num_unload_threads per_process_gpu_memory_fraction platform_config_file port
prefer_tflite_model remove_unused_fields_from_bundle_metagraph rest_api_enable_cors_support
rest_api_num_threads rest_api_port rest_api_timeout_in_ms saved_model_tags skip_initialize_tpu
ssl_config_file tensorflow_inter_op_parallelism tensorflow_intra_op_parallelism
tensorflow_session_config_file tensorflow_session_parallelism thread_pool_factory_config_file
use_alts_credentials xla_cpu_compilation_enabled xla_gpu_compilation_enabled
"""
DERIVED = {"grpc_max_threads", "max_inflight_bytes"}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["--port=1"], 1),
        (["--port", "1"], 1),
        ([], 8500),
    ],
)
def test_a_value_follows_an_equals_sign_or_a_space(given: list[str], found: int) -> None:
    assert parse([*given, "--model_base_path=/m"]).port == found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["--enable_batching"], True),
        (["--enable_batching=true"], True),
        (["--enable_batching", "true"], True),
        (["--enable_batching=false"], False),
        (["--enable_batching=1"], True),
        ([], False),
    ],
)
def test_a_switch_is_bare_or_has_a_value(given: list[str], found: bool) -> None:
    assert parse([*given, "--model_base_path=/m"]).enable_batching is found


def test_flags_are_not_abbreviated() -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--model_base=/m"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("given", "near"),
    [("--enable_baching", "--enable_batching"), ("--model_base=/m", "--model_base_path")],
)
def test_a_misspelt_flag_ends_the_start_and_the_nearest_is_named(given, near, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--model_base_path=/m", given])
    assert caught.value.code == 2
    assert f"did you mean {near}?" in capsys.readouterr().err


def test_every_flag_of_tensorflow_model_server_is_known() -> None:
    assert {flag.name for flag in FLAGS} >= set(UPSTREAM.split())


def test_flags_that_once_ended_the_start_do_not() -> None:
    flags = ["--model_base_path=/m", "--load_retry_interval_micros=-1"]
    assert parse(flags).load_retry_interval_micros == -1
    (line,) = warnings(parse([*flags, "--prefer_tflite_model=true"]))
    assert "--prefer_tflite_model is accepted but has no effect" in line


def test_what_has_no_effect_is_said_once_it_is_given() -> None:
    assert warnings(parse(["--model_base_path=/m"])) == []
    (line,) = warnings(parse(["--model_base_path=/m", "--num_tflite_pools=4"]))
    assert "--num_tflite_pools" in line


def test_a_flag_without_effect_is_reported_even_with_its_default() -> None:
    for flag in (flag for flag in FLAGS if flag.ignored):
        (line,) = warnings(parse(["--model_base_path=/m", f"--{flag.name}={flag.default}"]))
        assert f"--{flag.name} " in line


def test_per_model_batching_without_batching_is_said() -> None:
    flags = ["--model_base_path=/m", "--enable_per_model_batching_parameters"]
    (line,) = warnings(parse(flags))
    assert "has no effect without batching" in line
    assert warnings(parse([*flags, "--enable_batching"])) == []


def test_embeddings_without_a_rest_port_get_a_warning():
    flags = ["--model_base_path=/m", "--enable_openai_embeddings"]
    (line,) = warnings(parse(flags))
    assert "--rest_api_port" in line
    assert warnings(parse([*flags, "--rest_api_port=8501"])) == []


@pytest.mark.parametrize(
    "given",
    [
        "--port=65536",
        "--port=-1",
        "--rest_api_num_threads=-1",
        "--rest_api_num_threads=0",
        "--tensorflow_intra_op_parallelism=-3",
        "--tensorflow_session_parallelism=99999999999",
        "--num_load_threads=-1",
        "--max_num_load_retries=-1",
        "--per_process_gpu_memory_fraction=7",
        "--per_process_gpu_memory_fraction=nan",
        "--max_inflight_bytes=-1",
        "--grpc_max_threads=-1",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=99999999999",
    ],
)
def test_a_number_out_of_range_is_named_at_once(given, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--model_base_path=/m", given])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert given.split("=")[0] in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.refused], ids=lambda f: f.name)
def test_what_cannot_be_honoured_is_refused(flag, capsys) -> None:
    value = "true" if isinstance(flag.default, bool) else "file"
    with pytest.raises(SystemExit) as caught:
        parse(["--model_base_path=/m", f"--{flag.name}={value}"])
    assert caught.value.code == 2
    assert f"--{flag.name} is not supported" in capsys.readouterr().err


def test_channel_arguments_that_read_as_numbers_are_numbers() -> None:
    assert channel_arguments("grpc.a=1,grpc.b=x=y,") == [("grpc.a", 1), ("grpc.b", "x=y")]


def test_the_page_says_the_default_of_every_flag() -> None:
    rows = dict(re.findall(r"^\| `--(\w+)` \|([^|]*)\|", PAGE.read_text(), re.M))
    wrong = []
    for flag in FLAGS:
        if not (flag.refused or flag.ignored or flag.name in DERIVED):
            text = str(flag.default)
            default = text.lower() if isinstance(flag.default, bool) else text
            if rows.get(flag.name, "no row").strip() != (default if default != "0.0" else "0"):
                wrong.append(flag.name)
    assert wrong == []


def test_the_page_says_what_is_not_here() -> None:
    section = PAGE.read_text().split("### Not supported")[1].split("\n## ")[0]
    refused, ignored = section.split("accepted with a warning")
    for flag in FLAGS:
        assert (f"`--{flag.name}`" in refused) == flag.refused
        assert (f"`--{flag.name}`" in ignored) == flag.ignored
