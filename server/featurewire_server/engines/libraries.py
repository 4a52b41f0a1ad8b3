"""Imports TensorFlow and OpenVINO without side effects: logging, telemetry, files in `~`."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featurewire_server.common.errors import failed_precondition


def import_tensorflow() -> Any:
    """Import TensorFlow and let it find its devices. It writes to stderr only if this fails.

    Raises FAILED_PRECONDITION if it is not installed.
    """
    if sys.modules.get("tensorflow") is not None:
        import tensorflow as tf  # waits for another thread that is importing it

        return tf
    if importlib.util.find_spec("tensorflow") is None:
        raise failed_precondition(
            'TensorFlow is not installed: pip install "featurewire-server[tensorflow]"'
        )
    # Without a GPU, TensorFlow's logged errors are only advice, for example about types that oneDNN
    # lacks on this processor. Real failures also raise an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if _has_device() else "3")
    # Keras comes with TensorFlow. We do not use it, but importing it writes ~/.keras/keras.json.
    os.environ.setdefault("KERAS_HOME", os.devnull)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # warnings are for graph authors
    with _held_back():
        import tensorflow as tf

        tf.config.list_physical_devices()  # complains if CUDA is missing
    keep_collections_short()
    return tf


def keep_collections_short() -> None:
    """Exclude all objects so far from garbage collection, because callers wait during one.

    Call it after imports: the objects of a library live as long as the process.
    """
    gc.collect()
    gc.freeze()


def sees_gpu() -> bool:
    """Whether TensorFlow is installed and sees a GPU. Imports TensorFlow only next to a device."""
    if not _has_device() or importlib.util.find_spec("tensorflow") is None:
        return False
    return bool(import_tensorflow().config.list_physical_devices("GPU"))


def import_openvino() -> Any:
    """Import OpenVINO without `openvino_telemetry`.

    That package reports every import to a statistics host, and stores an identity in `~/intel`.
    Environment variables cannot turn it off. OpenVINO works if the package is missing.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes its import fail
    import openvino as ov

    return ov


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Capture output to file descriptor 2, and show it only if the block fails.

    TensorFlow's C++ code writes there before any setting takes effect. On a machine with an NVIDIA
    device, the output is not captured, because it explains why a GPU is not used.
    """
    if _has_device():
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        saved = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(saved, kept.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _has_device() -> bool:
    """Whether the system shows a GPU of NVIDIA or AMD, or that of Windows to its Linux."""
    return any(path for name in ("nvidia*", "kfd", "dxg") for path in Path("/dev").glob(name))
