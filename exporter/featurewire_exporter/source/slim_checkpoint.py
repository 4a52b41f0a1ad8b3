"""A TF-Slim checkpoint of Inception ResNet V2 as a module."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from featurewire_exporter.errors import ModuleError, one_line
from featurewire_exporter.source.network import SCOPE
from featurewire_exporter.source.network_module import variable_shapes, write_network_module

_HEADS = (f"{SCOPE}/Logits/", f"{SCOPE}/AuxLogits/")
_TRAINING = ("RMSProp", "RMSProp_1", "Adam", "Adam_1", "Momentum", "ExponentialMovingAverage")
_NAMED_AT_MOST = 3


def checkpoint_prefix(path: str) -> str:
    """The name of a checkpoint, from the name of one of its files."""
    return re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)


def write_slim_module(checkpoint: str, directory: Path) -> Path:
    """Write the network with the checkpoint's weights as a TF1 Hub module into `directory`.

    Ignores classification heads and training-only variables. Raises `ModuleError`, which names
    missing and surplus variables.
    """
    try:
        reader = tf.train.load_checkpoint(checkpoint_prefix(checkpoint))
        present = reader.get_variable_to_shape_map()
    except (ValueError, tf.errors.OpError, RuntimeError) as error:
        raise ModuleError(
            f"{checkpoint} is not a checkpoint that TensorFlow can read ({one_line(error)}); give "
            "the path up to and including .ckpt"
        ) from error
    wanted = variable_shapes()
    missing = sorted(set(wanted) - set(present))
    surplus = sorted(name for name in set(present) - set(wanted) if not _ignored(name))
    misshapen = sorted(
        name for name in set(wanted) & set(present) if tuple(present[name]) != wanted[name]
    )
    faults = [
        f"{what} {_names(names)}"
        for what, names in (
            ("misses", missing),
            ("also has", surplus),
            ("has in another shape", misshapen),
        )
        if names
    ]
    if faults:
        raise ModuleError(
            f"{checkpoint} is not a TF-Slim checkpoint of Inception ResNet V2: it "
            f"{', '.join(faults)}; inception_resnet_v2_2016_08_30.ckpt is one"
        )
    try:
        values = {name: np.asarray(reader.get_tensor(name), np.float32) for name in wanted}
    except (IndexError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ModuleError(
            f"the weights of {checkpoint} cannot be read ({one_line(error)}); fetch it again, "
            "with its .data files next to its .index"
        ) from error
    return write_network_module(directory, values)


def _ignored(name: str) -> bool:
    return name.startswith(_HEADS) or name == "global_step" or name.rsplit("/", 1)[-1] in _TRAINING


def _names(names: Iterable[str]) -> str:
    """The names, or the first few and the number of the others."""
    names = list(names)
    shown = ", ".join(names[:_NAMED_AT_MOST])
    more = len(names) - _NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
