"""The command line of `featurewire rollout`: its options and what it prints."""
