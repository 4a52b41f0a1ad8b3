"""The steps of a rollout, one file each, and what they share."""
