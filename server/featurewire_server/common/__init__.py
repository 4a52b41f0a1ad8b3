"""Modules that every other folder may import."""
