"""Which versions of which models are loaded, and how they become so."""
