"""Imports TensorFlow and OpenVINO without what they do besides: log, phone home, write to `~`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def import_tensorflow() -> Any:
    """TensorFlow, its devices found. It says nothing on standard error unless it fails."""
    # Without a GPU, what it logs as an error is advice: which types oneDNN lacks on this processor.
    # What fails is raised as well.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if _has_nvidia_device() else "3")
    # Keras comes with TensorFlow, is not used here and writes ~/.keras/keras.json when imported.
    os.environ.setdefault("KERAS_HOME", os.devnull)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # advice to those who write graphs
    with _held_back():
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for CUDA, and complains where there is none
    return tf


def import_openvino() -> Any:
    """OpenVINO without `openvino_telemetry`.

    That package posts every import to a statistics host, and keeps an identity in `~/intel`.
    No setting of the environment stops it; OpenVINO works without it where it is not installed.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # ImportError for all
    import openvino as ov

    return ov


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Keep what is written to file descriptor 2, and show it only after a failure.

    TensorFlow's C++ part writes there before any of its settings count. On a machine with an
    NVIDIA device nothing is held back: there it tells why a GPU is not used.
    """
    if "tensorflow" in sys.modules or _has_nvidia_device():
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


def _has_nvidia_device() -> bool:
    return any(Path("/dev").glob("nvidia*"))
