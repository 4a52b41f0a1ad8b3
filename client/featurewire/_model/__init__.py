"""What is known of the served model, and how it is asked for."""
