"""Pure decisions: from the config and what the replicas serve to the next goal."""
