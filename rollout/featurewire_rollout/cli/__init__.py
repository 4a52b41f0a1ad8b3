"""The command line of `featurewire rollout`: options and output."""
