"""Reads the files that flags name, all in protobuf text format."""

from __future__ import annotations

import argparse
import ssl
import tempfile
from pathlib import Path

from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_server._tfs.monitoring_config_pb2 import MonitoringConfig
from featurewire_server._tfs.session_bundle_config_pb2 import BatchingParameters
from featurewire_server._tfs.ssl_config_pb2 import SSLConfig
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.common import cgroup
from featurewire_server.common.errors import ServingError, invalid_argument
from featurewire_server.common.text_files import read
from featurewire_server.engines.engine import EngineConfig
from featurewire_server.engines.libraries import import_tensorflow
from featurewire_server.flags import CORES
from featurewire_server.models.policy import PLATFORM


def model_server_config(flags: argparse.Namespace) -> ModelServerConfig:
    """The models to serve, from the config file or from the flags for a single model."""
    if flags.model_config_file:
        return read(flags.model_config_file, ModelServerConfig())
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=flags.model_name, base_path=flags.model_base_path, model_platform=PLATFORM
    )
    return config


def engine_config(flags: argparse.Namespace) -> EngineConfig:
    """The engine settings of the flags. Imports TensorFlow only for a session file."""
    session = b""
    both = flags.tensorflow_session_parallelism
    intra = flags.tensorflow_intra_op_parallelism or both
    inter = flags.tensorflow_inter_op_parallelism or both
    if flags.tensorflow_session_config_file:
        proto = import_tensorflow().compat.v1.ConfigProto()
        read(flags.tensorflow_session_config_file, proto)
        intra = intra or proto.intra_op_parallelism_threads
        inter = inter or proto.inter_op_parallelism_threads
        session = proto.SerializeToString()
    if cgroup.affinity() > CORES:  # TensorFlow ignores CPU quotas
        intra, inter = intra or CORES, inter or CORES
    return EngineConfig(
        engine=flags.engine,
        tags=tuple(filter(None, flags.saved_model_tags.split(","))),
        session_config=session,
        intra_op_threads=intra,
        inter_op_threads=inter,
        gpu_memory_fraction=flags.per_process_gpu_memory_fraction,
        mixed_precision=flags.mixed_precision
        or (flags.engine_precision if flags.engine_precision == "bfloat16" else ""),
        int8=flags.engine_precision == "int8",
    )


def monitoring_config(flags: argparse.Namespace) -> MonitoringConfig:
    """The monitoring config; empty without --monitoring_config_file."""
    config = MonitoringConfig()
    return read(flags.monitoring_config_file, config) if flags.monitoring_config_file else config


def ssl_config(flags: argparse.Namespace) -> SSLConfig | None:
    """The TLS config, or None without --ssl_config_file.

    Raises INVALID_ARGUMENT if a field is missing or is not valid PEM text.
    """
    if not flags.ssl_config_file:
        return None
    config = read(flags.ssl_config_file, SSLConfig())
    for field in ("server_key", "server_cert"):
        if not getattr(config, field):
            raise invalid_argument(f"{flags.ssl_config_file}: {field} is missing")
    if config.client_verify and not config.custom_ca:
        raise invalid_argument(f"{flags.ssl_config_file}: client_verify needs custom_ca")
    _check_pem(flags.ssl_config_file, config)
    return config


def _check_pem(name: str, config: SSLConfig) -> None:
    """Raise INVALID_ARGUMENT for bad PEM texts, which gRPC would report only as a failed bind."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # mode 0700; the ssl module reads only files
        key, certificate = Path(folder, "key"), Path(folder, "certificate")
        key.write_text(config.server_key)
        certificate.write_text(config.server_cert)
        try:
            context.load_cert_chain(certificate, key)
        except (ssl.SSLError, ValueError) as error:
            raise invalid_argument(
                f"{name}: server_key and server_cert are not a private key and its certificate "
                f"in PEM text ({_reason(error)}); they are the contents, not paths"
            ) from error
    if config.custom_ca:
        try:
            context.load_verify_locations(cadata=config.custom_ca)
        except (ssl.SSLError, ValueError) as error:
            raise invalid_argument(
                f"{name}: custom_ca is not a certificate in PEM text ({_reason(error)})"
            ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


def batching_config(flags: argparse.Namespace) -> BatchingConfig | None:
    """The batching config, or None without --enable_batching.

    Raises INVALID_ARGUMENT for parameters that are out of range or contradict each other.
    """
    if not flags.enable_batching:
        return None
    proto = BatchingParameters()
    if flags.batching_parameters_file:
        read(flags.batching_parameters_file, proto)
    try:
        return BatchingConfig.from_proto(proto)
    except ServingError as error:
        raise invalid_argument(f"{flags.batching_parameters_file}: {error.message}") from error
