"""From a TF-Hub image-feature-vector module to a versioned SavedModel that takes image bytes.

Importing this does nothing. `commands` holds what the command line runs; `export.export_module` is
the same for programs.
"""
