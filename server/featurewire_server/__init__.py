"""Featurewire's embedded server: TensorFlow Serving's API in one process.

`command.serve` is the `featurewire serve` command; docs/server.md describes it.
"""

__version__ = "0.1.0"
