"""The flags of tensorflow_model_server: a table, and a parser with the same rules."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from featurewire_server.common import cgroup

INT32 = (1 << 31) - 1
INT64 = (1 << 63) - 1
PORT = (1 << 16) - 1
CORES = cgroup.cores()
"""Cores that affinity and control groups allow; the host may have more."""


@dataclass(frozen=True)
class Flag:
    """A flag, whose type is that of `default`. docs/server.md has a table of all flags."""

    name: str
    default: str | int | float | bool
    help: str
    ignored: bool = False
    """Accepted with a warning, because this server lacks the part that the flag controls."""
    refused: bool = False
    """An error if given, because serving without the flag's protection would be less safe."""
    choices: tuple[str, ...] = ()
    low: float = 0
    """The smallest value allowed; only for numbers."""
    high: float = INT32


FLAGS = [
    # --- where to listen
    Flag("port", 8500, "TCP port of the gRPC API; 0: none", high=PORT),
    Flag("grpc_socket_path", "", "UNIX socket of the gRPC API, next to the port or instead of it"),
    Flag("rest_api_port", 0, "TCP port of the REST API; 0: none", high=PORT),
    Flag("rest_api_num_threads", 1000, "POST requests over REST at once", low=1, high=1024),
    Flag("rest_api_timeout_in_ms", 30_000, "how long a REST request may take", low=1),
    Flag("rest_api_enable_cors_support", False, "answer cross-origin REST requests"),
    Flag("ssl_config_file", "", "SSLConfig text file: TLS, and client certificates, for gRPC"),
    Flag("grpc_channel_arguments", "", "comma-separated KEY=VALUE options of the gRPC server"),
    Flag(
        "grpc_max_threads",
        0,
        "threads that answer gRPC requests, one for each Predict in flight; 0: 4 x cores, with "
        "batching at least enough to fill two batches",
    ),
    Flag("enable_grpc_healthcheck_service", False, "offer grpc.health.v1.Health"),
    Flag(
        "enable_oip",
        False,
        "answer the Open Inference Protocol v2 on the gRPC and REST ports (this server's own flag)",
    ),
    Flag(
        "enable_openai_embeddings",
        False,
        "answer /v1/embeddings on the REST port (this server's own flag)",
    ),
    Flag("use_alts_credentials", False, "Google ALTS", refused=True),
    # --- what to serve
    Flag("model_name", "default", "name of the single model"),
    Flag("model_base_path", "", "absolute directory whose numbered directories are its versions"),
    Flag("model_config_file", "", "ModelServerConfig text file; comes before the single model"),
    Flag(
        "model_config_file_poll_wait_seconds",
        0,
        "seconds between reads of that file; 0: read it once",
    ),
    Flag(
        "file_system_poll_wait_seconds",
        1,
        "seconds between polls for new versions; 0 or less: poll once",
        low=-INT32,
    ),
    Flag("saved_model_tags", "serve", "comma-separated tags of the meta graph to load"),
    Flag("platform_config_file", "", "PlatformConfigMap text file", ignored=True),
    Flag(
        "allow_version_labels_for_unavailable_models",
        False,
        "let a label that no version has yet point to an unavailable version",
    ),
    Flag("num_load_threads", 0, "versions that load at once; 0: one", high=1024),
    Flag("num_unload_threads", 0, "each version unloads in a thread of its own", ignored=True),
    Flag("max_num_load_retries", 5, "maximum number of retries of a failed load"),
    Flag(
        "load_retry_interval_micros",
        60_000_000,
        "microseconds between these retries; less than 0: no wait",
        low=-INT64,
        high=1e15,  # thirty years; a lock cannot wait much longer
    ),
    Flag(
        "flush_filesystem_caches", True, "drop the file system's caches after a load", ignored=True
    ),
    Flag("enable_model_warmup", True, "replay a version's warm-up records before it is available"),
    Flag("num_request_iterations_for_warmup", 1, "number of times to replay each warm-up record"),
    Flag(
        "enable_signature_method_name_check",
        False,
        "refuse Predict on signatures whose method name TensorFlow Serving does not know",
    ),
    # --- batching
    Flag("enable_batching", False, "merge concurrent requests into batches"),
    Flag("batching_parameters_file", "", "BatchingParameters text file"),
    Flag(
        "enable_per_model_batching_parameters",
        False,
        "let a version's batching_params.pbtxt come before that file",
    ),
    # --- how to compute
    Flag(
        "engine",
        "auto",
        "the engine (this server's own flag): openvino for versions that featurewire exported, "
        "tensorflow for any SavedModel, auto to choose",
        choices=("auto", "tensorflow", "openvino"),
    ),
    Flag(
        "engine_precision",
        "",
        "precision of the network (this server's own flag): int8 for versions exported with "
        "--int8, by OpenVINO; empty: what --mixed_precision says",
        choices=("float32", "bfloat16", "int8"),
    ),
    Flag("mixed_precision", "", "bfloat16 on a CPU, float16 on a GPU; empty: float32"),
    Flag(
        "tensorflow_session_parallelism", 0, "threads within and between operations; 0: all cores"
    ),
    Flag("tensorflow_intra_op_parallelism", 0, "threads within an operation; 0: all cores"),
    Flag("tensorflow_inter_op_parallelism", 0, "operations that run at once; 0: all cores"),
    Flag("tensorflow_session_config_file", "", "ConfigProto text file for every session"),
    Flag(
        "per_process_gpu_memory_fraction",
        0.0,
        "fraction of the GPU's memory to take; 0: as needed",
        high=1,
    ),
    Flag("xla_cpu_compilation_enabled", False, "compile functions that ask for XLA", ignored=True),
    Flag("xla_gpu_compilation_enabled", False, "compile functions that ask for XLA", ignored=True),
    Flag("thread_pool_factory_config_file", "", "thread pool factory", ignored=True),
    Flag("use_tflite_model", False, "serve model.tflite", ignored=True),
    Flag("prefer_tflite_model", False, "serve model.tflite where there is one", ignored=True),
    Flag("num_tflite_pools", 1, "pools of TFLite interpreters", ignored=True),
    Flag("num_tflite_interpreters_per_pool", 1, "size of a TFLite pool", ignored=True),
    Flag("remove_unused_fields_from_bundle_metagraph", True, "memory saving", ignored=True),
    Flag("enable_profiler", True, "profiler service", ignored=True),
    Flag("skip_initialize_tpu", False, "TPU start", ignored=True),
    # --- monitoring, answers and limits
    Flag("monitoring_config_file", "", "MonitoringConfig text file: Prometheus on the REST port"),
    Flag("enable_serialization_as_tensor_content", False, "reply in tensor_content"),
    Flag(
        "max_inflight_bytes",
        0,
        "request bytes held at once, and the largest request (this server's own flag); 0: 512 MiB, "
        "or an eighth of the memory if that is less",
        high=INT64,
    ),
]


class _Parser(argparse.ArgumentParser):
    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            names = [option for action in self._actions for option in action.option_strings]
            given = unknown[0].split("=")[0]
            near = [name for name in names if len(given) > 3 and name.startswith(given)]
            near += difflib.get_close_matches(given, names, 1, cutoff=0.5)
            advice = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
        return found

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "t", "y", "yes"):
        return True
    if text.lower() in ("false", "0", "f", "n", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def parser() -> argparse.ArgumentParser:
    """The parser: `--flag=value` or `--flag value`, and `--flag` alone for a boolean.

    An unknown flag exits with status 2.
    """
    made = _Parser(
        prog="featurewire serve",
        description="TensorFlow Serving's API in one process. The flags are those of "
        "tensorflow_model_server; docs/server.md lists the differences.",
        allow_abbrev=False,
    )
    made.add_argument("--version", action="store_true", help="print the version and exit")
    for flag in FLAGS:
        note = " (ignored)" if flag.ignored else " (not supported)" if flag.refused else ""
        # No default here, so that `parse` can tell which flags were given. It adds the defaults.
        options: dict[str, Any] = {
            "default": argparse.SUPPRESS,
            "help": flag.help.replace("%", "%%") + note,
        }
        if isinstance(flag.default, bool):
            options |= {"nargs": "?", "const": True, "type": _boolean, "metavar": "true|false"}
        else:
            options |= {"type": type(flag.default), "metavar": type(flag.default).__name__.upper()}
        if flag.choices:
            options |= {"choices": flag.choices, "metavar": "|".join(flag.choices)}
        made.add_argument(f"--{flag.name}", **options)
    return made


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags by name; `given` holds the names of the flags on the command line.

    Exits with status 2 for flags that are invalid whatever the config files say.
    """
    made = parser()
    given = made.parse_args(argv)
    defaults = {flag.name: flag.default for flag in FLAGS}
    flags = argparse.Namespace(**(defaults | vars(given)), given=frozenset(vars(given)))
    if not flags.version:
        problem = next(_problems(flags), "")
        if problem:
            made.error(problem)
    return flags


_CONTRADICTIONS: list[tuple[Callable[[argparse.Namespace], bool], str]] = [
    (
        lambda flags: not flags.model_base_path and not flags.model_config_file,
        "one of --model_base_path and --model_config_file must be given",
    ),
    (
        lambda flags: not flags.port and not flags.grpc_socket_path,
        "one of --port and --grpc_socket_path must be given",
    ),
    (
        lambda flags: flags.rest_api_port != 0 and flags.rest_api_port == flags.port,
        "--rest_api_port cannot be the same as --port",
    ),
    (
        lambda flags: flags.batching_parameters_file != "" and not flags.enable_batching,
        "--batching_parameters_file is set without --enable_batching",
    ),
    (
        lambda flags: flags.mixed_precision not in ("", "bfloat16", "float16"),
        "--mixed_precision must be bfloat16 or float16",
    ),
    (
        lambda flags: (
            "" not in (flags.mixed_precision, flags.engine_precision)
            and flags.mixed_precision != flags.engine_precision
        ),
        "--engine_precision and --mixed_precision contradict each other; give one of them",
    ),
    (
        lambda flags: flags.engine_precision == "int8" and flags.engine == "tensorflow",
        "--engine_precision=int8 needs OpenVINO; give --engine=openvino",
    ),
]
"""Conditions that make a command line invalid, each with its error text."""


def _problems(flags: argparse.Namespace) -> Iterator[str]:
    """The error text of every problem, the most basic first."""
    for flag in FLAGS:
        yield from _flag_problems(flag, getattr(flags, flag.name))
    yield from (text for wrong, text in _CONTRADICTIONS if wrong(flags))
    for argument in filter(None, flags.grpc_channel_arguments.split(",")):
        if "=" not in argument:
            yield f"--grpc_channel_arguments: {argument!r} is not KEY=VALUE"
    for key, value in channel_arguments(flags.grpc_channel_arguments):
        if isinstance(value, int) and not -INT32 <= value <= INT32:
            yield f"--grpc_channel_arguments: {key}={value} is beyond 32 bits"


def _flag_problems(flag: Flag, value: Any) -> Iterator[str]:
    if flag.refused and value != flag.default:
        yield f"--{flag.name} is not supported by the embedded server"
    is_number = not isinstance(flag.default, (bool, str))
    if is_number and not flag.low <= value <= flag.high:  # NaN fails both
        yield f"--{flag.name} is {value}; it must be from {flag.low:g} to {flag.high:g}"


def warnings(flags: argparse.Namespace) -> list[str]:
    """One line per given flag without an effect."""
    lines = [
        f"--{flag.name} is accepted but has no effect in the embedded server"
        for flag in FLAGS
        if flag.ignored and flag.name in flags.given
    ]
    if flags.enable_per_model_batching_parameters and not flags.enable_batching:
        lines.append("--enable_per_model_batching_parameters has no effect without batching")
    if flags.enable_openai_embeddings and not flags.rest_api_port:
        lines.append("--enable_openai_embeddings has no effect without --rest_api_port")
    return lines


def channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """The options in `--grpc_channel_arguments`. A value that reads as an integer becomes one."""
    options: list[tuple[str, int | str]] = []
    for argument in filter(None, text.split(",")):
        key, value = argument.split("=", 1)
        try:
            number: int | str = int(value)
        except ValueError:
            number = value
        options.append((key.strip(), number))
    return options
