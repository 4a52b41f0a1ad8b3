"""The network as a graph: frozen to constants, folded, and lowered in precision."""
