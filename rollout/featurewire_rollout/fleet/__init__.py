"""The replicas: what they serve, and how they are brought to a config."""
