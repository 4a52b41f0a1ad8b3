"""Converts messages to arrays and back, and checks them against the signature."""
