"""The replicas: their state, and how they converge to a config."""
