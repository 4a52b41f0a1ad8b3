"""Decides which requests run next, and which of them run together as a batch."""
