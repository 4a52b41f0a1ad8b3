"""The same network behind servers of others, each set up as its own documentation says."""
