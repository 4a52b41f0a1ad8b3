"""Writes and publishes a version: its SavedModel, its manifest and its other files."""
