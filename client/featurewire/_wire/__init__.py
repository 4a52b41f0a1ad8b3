"""Bytes of requests and replies. No I/O."""
