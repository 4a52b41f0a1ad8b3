"""Facts about the served model, and the calls that ask for them."""
