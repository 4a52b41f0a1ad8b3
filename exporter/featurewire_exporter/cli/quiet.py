"""Keeps TensorFlow's log off standard error."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[TextIO]:
    """Discard what TensorFlow writes to file descriptor 2, and yield the real standard error.

    TensorFlow's C++ code logs there during its import, at levels that no setting hides, but a
    command should fail with one line. `FEATUREWIRE_DEBUG=1` keeps the log.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Keras comes with TensorFlow and writes ~/.keras/keras.json when it is imported.
    os.environ.setdefault("KERAS_HOME", os.devnull)
    # Parity is measured in full float32 on the CPU: a GPU would round to TF32.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if os.environ.get("FEATUREWIRE_DEBUG") or not _has_descriptor(sys.stderr):
        yield sys.stderr
        return
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), os.fdopen(os.dup(saved), "w", buffering=1) as stream:
            warnings.simplefilter("ignore")
            yield stream
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _has_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, io.UnsupportedOperation, ValueError):
        return False
