"""The parts of `make bench`: one module per part, whose `measure(quick)` returns its figures."""

NAMES = (
    "network",
    "decode",
    "image",
    "front",
    "serving",
    "instructions",
    "start",
    "peers",
    "clients",
    "loadgen",
    "accuracy",
    "arithmetic",
)
"""The order in which the parts run and appear in the report."""
