"""One RPC: its attempts, retries and hedges, and the connection that they go through."""
