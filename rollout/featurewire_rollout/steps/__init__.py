"""The steps of a rollout, and the parts that they share."""
