"""Measurements before a version is published: parity with the module, and search."""
