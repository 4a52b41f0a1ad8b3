"""Messages to arrays and back, checked against the signature."""
