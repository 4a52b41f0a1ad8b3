"""The version that is published: its SavedModel, its manifest, and the files beside them."""
