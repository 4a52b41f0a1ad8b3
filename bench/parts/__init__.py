"""The parts of `make bench`: a module each, whose `measure(quick)` gives its figures."""

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
"""In the order in which they run and stand in the report."""
