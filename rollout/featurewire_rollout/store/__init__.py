"""Read, lock and write the config, and edit its text."""
