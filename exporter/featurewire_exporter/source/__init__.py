"""Where a module comes from: found or made, unpacked, and read."""
