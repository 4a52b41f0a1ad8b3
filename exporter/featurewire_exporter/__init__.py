"""Turns a TF-Hub image-feature-vector module into a versioned SavedModel that takes image bytes.

Importing the package does nothing. `commands` has the functions behind the command line, and
`export.export_module` does the same for programs.
"""
