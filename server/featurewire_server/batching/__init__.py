"""Which requests run next, and together."""
