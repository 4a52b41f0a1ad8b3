"""Visual search: drop a photo, see the ones that look like it."""
