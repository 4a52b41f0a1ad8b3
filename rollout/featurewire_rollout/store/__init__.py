"""Where the config is kept, and how its text is read and edited."""
