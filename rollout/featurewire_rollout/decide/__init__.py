"""Decisions without I/O: from the config and the state of the replicas to the next goal."""
