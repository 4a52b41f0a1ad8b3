"""Fetches or makes a module, unpacks it, and finds its function."""
