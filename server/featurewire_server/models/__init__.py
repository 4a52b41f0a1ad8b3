"""Decides which versions of which models to load, and loads and unloads them."""
