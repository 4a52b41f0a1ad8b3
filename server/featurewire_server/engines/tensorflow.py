"""Runs any SavedModel like TensorFlow Serving, in a TF1 Session over its meta graph.

Importing this module imports TensorFlow, which takes seconds.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session

from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire_server.common import memory
from featurewire_server.common.errors import (
    ServingError,
    cancelled,
    failed_precondition,
    from_exception,
    from_run,
    not_found,
)
from featurewire_server.engines.engine import EngineConfig, Patience, endless

log = logging.getLogger(__name__)

_FILES = ("saved_model.pb", "saved_model.pbtxt")
_MIXED_PRECISION = {
    "bfloat16": "auto_mixed_precision_onednn_bfloat16",
    "float16": "auto_mixed_precision",
}


def session_config(config: EngineConfig) -> tf.compat.v1.ConfigProto:
    """The ConfigProto of every session: the session file, the flags that override it, and the
    mixed-precision rewrite."""
    proto = tf.compat.v1.ConfigProto.FromString(config.session_config)
    if config.intra_op_threads:
        proto.intra_op_parallelism_threads = config.intra_op_threads
    if config.inter_op_threads:
        proto.inter_op_parallelism_threads = config.inter_op_threads
    if config.gpu_memory_fraction:
        proto.gpu_options.per_process_gpu_memory_fraction = config.gpu_memory_fraction
    if config.mixed_precision:
        rewriter = proto.graph_options.rewrite_options
        setattr(rewriter, _MIXED_PRECISION[config.mixed_precision], rewriter.ON)
    return proto


def session_callable(
    session: tf.compat.v1.Session, fetches: Sequence[str], feeds: Sequence[str]
) -> Callable[..., list[Any]]:
    """A function that takes arrays in the order of `feeds` and returns the values of `fetches`.

    `feeds` and `fetches` are names of tensors. After `seconds` the run is cancelled: it ends with
    DEADLINE_EXCEEDED when the operations that have started are done. Runs are not limited by
    default.

    We do not use `Session.make_callable` or `Session.run`, because these refuse inputs that do not
    have a placeholder's shape. TensorFlow Serving's sessions leave that decision to the kernels,
    and so do we. Also, the timeout of a callable from `make_callable` is fixed.
    """
    session._extend_graph()

    def output_of(name: str) -> Any:
        """The output `name`. The session checks whether the operation has that many outputs."""
        operation, _, index = name.partition(":")
        return session.graph.get_operation_by_name(operation)._tf_output(int(index or 0))

    inputs, outputs = ([output_of(name) for name in names] for names in (feeds, fetches))

    def run(*arrays: np.ndarray, seconds: float = math.inf) -> list[Any]:
        if seconds <= 0:
            raise cancelled("The caller no longer waits for the answer")
        fed = dict(zip(inputs, arrays, strict=True))
        options = _timeout(seconds)
        try:
            found = session._call_tf_sessionrun(options, fed, outputs, [], None)
        finally:
            if options is not None:
                pywrap_tf_session.TF_DeleteBuffer(options)
        # A scalar string arrives as bytes, and numpy's string type would drop trailing zeros.
        return [
            np.array(value, dtype=object) if isinstance(value, bytes) else value for value in found
        ]

    return run


def _timeout(seconds: float) -> Any:
    """RunOptions with a timeout for TensorFlow's C API; None for an infinite timeout."""
    if seconds == math.inf:
        return None
    milliseconds = min(max(round(seconds * 1000), 1), 2**31)
    options = config_pb2.RunOptions(timeout_in_ms=milliseconds)
    return pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())


class TensorFlowEngine:
    """One version in one Session. `run` is thread-safe and releases the GIL."""

    name = "tensorflow"
    side_by_side = True

    def __init__(self, path: Path, config: EngineConfig) -> None:
        """Load the SavedModel at `path` and run its init ops. Raises ServingError."""
        if not any((path / name).is_file() for name in _FILES):
            raise not_found(
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}"
            )
        memory.return_large_blocks()
        self.precision = config.mixed_precision or "float32"
        self._lock = threading.Lock()
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., list[Any]]] = {}
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=session_config(config))
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(
                    self._session, list(config.tags), str(path)
                )
        except Exception as error:
            self.close()
            raise _load_error(error, path) from error
        self.signatures: Mapping[str, SignatureDef] = {
            key: SignatureDef.FromString(signature.SerializeToString())
            for key, signature in meta_graph.signature_def.items()
        }
        fixed = any(
            info.tensor_shape.dim and info.tensor_shape.dim[0].size >= 0
            for signature in self.signatures.values()
            for info in signature.inputs.values()
        )
        gpu = bool(tf.config.list_physical_devices("GPU"))
        if config.mixed_precision == "float16" and not gpu:
            log.warning("--mixed_precision=float16 has no effect without a GPU")
        self.pads = fixed or gpu

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience = endless,
    ) -> dict[str, np.ndarray]:
        aliases = sorted(inputs)
        try:
            run = self._callable(signature_name, aliases, tuple(outputs))
            values = run(*(inputs[alias] for alias in aliases), seconds=patience())
        except Exception as error:
            raise from_run(error) from error
        return dict(zip(outputs, values, strict=True))

    def close(self) -> None:
        self._callables.clear()
        self._session.close()

    def _callable(
        self, signature_name: str, aliases: Sequence[str], outputs: tuple[str, ...]
    ) -> Callable[..., list[Any]]:
        with self._lock:
            found = self._callables.get((signature_name, outputs))
            if found is None:
                signature = self.signatures[signature_name]
                found = session_callable(
                    self._session,
                    [_tensor_name(signature.outputs[alias].name, alias) for alias in outputs],
                    [_tensor_name(signature.inputs[alias].name, alias) for alias in aliases],
                )
                self._callables[signature_name, outputs] = found
            return found


def _tensor_name(name: str, alias: str) -> str:
    if not name:
        raise failed_precondition(f"{alias} is not a dense tensor; only dense tensors are served")
    return name


def _load_error(error: Exception, path: Path) -> ServingError:
    if isinstance(error, tf.errors.OpError):
        return from_run(error)
    # tf.compat.v1.saved_model raises plain Python errors if the files are damaged.
    text = " ".join(str(error).split())
    return ServingError(from_exception(error).code, f"Could not load {path}: {text[:600]}")
