"""A check's report as a page for people."""
