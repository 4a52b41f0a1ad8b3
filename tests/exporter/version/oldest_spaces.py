"""Compute vector spaces in another TensorFlow, with the exporter and the tests on its path.

usage: oldest_spaces.py SCRATCH_DIR MODULE_DIR...

Prints a JSON object: the space of each module by folder, and under `written` the spaces of modules
that this TensorFlow writes.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

from featurewire_exporter.graph.freeze import freeze
from featurewire_exporter.source.module import load_module
from featurewire_exporter.version.vector_space import vector_space
from tests.exporter.modules import write_tf1_hub_module, write_tf2_module


def space_of(module: Path) -> str:
    return vector_space(freeze(load_module(str(module))), {"of": "a test"})


def main() -> None:
    scratch, *modules = map(Path, sys.argv[1:])
    written = [
        write_tf2_module(scratch / "tf2"),
        write_tf2_module(scratch / "signed", signature=True),
        write_tf1_hub_module(scratch / "tf1"),
        write_tf1_hub_module(scratch / "resource", use_resource=True),
    ]
    print(
        json.dumps(
            {
                "tensorflow": tf.__version__,
                "spaces": {str(module): space_of(module) for module in modules},
                "written": {module.name: space_of(module) for module in written},
            }
        )
    )


if __name__ == "__main__":
    main()
