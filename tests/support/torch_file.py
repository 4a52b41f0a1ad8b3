"""Read the tensors of a `.pth` file without PyTorch.

The legacy format (PyTorch before 1.6): five pickles, which are a magic number, the protocol's
version, facts about the machine, the object itself and the list of its storages' keys; then each
storage as an int64 count and that many raw numbers. See `torch/serialization.py`, `_legacy_load`.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of the file by name. Raises `pickle.UnpicklingError` for any other content."""
    storages: dict[str, np.ndarray] = {}

    class Restricted(pickle.Unpickler):
        """Calls only the two constructors that a dictionary of tensors needs."""

        def find_class(self, module: str, name: str) -> Any:
            if (module, name) == ("collections", "OrderedDict"):
                return OrderedDict
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return _tensor
            if module == "torch" and name in DTYPES:
                return DTYPES[name]
            raise pickle.UnpicklingError(f"{path.name} wants {module}.{name}")

        def persistent_load(self, pid: Any) -> np.ndarray:
            _, dtype, key, _, count, _ = pid
            return storages.setdefault(key, np.empty(count, dtype))

    with path.open("rb") as file:
        if Restricted(file).load() != MAGIC:
            raise pickle.UnpicklingError(f"{path.name} is not in PyTorch's legacy format")
        Restricted(file).load()  # the protocol's version
        Restricted(file).load()  # byte order and sizes of the machine that wrote it
        tensors = Restricted(file).load()
        for key in Restricted(file).load():
            count = int(np.fromfile(file, "<i8", 1)[0])
            storages[key][:] = np.fromfile(file, storages[key].dtype, count)
    return dict(tensors)


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    """A view of the storage, whose data are read after all views are made."""
    return np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [step * storage.itemsize for step in strides]
    )
