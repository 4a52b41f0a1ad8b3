"""Visual search: drop a photo, see similar ones."""
