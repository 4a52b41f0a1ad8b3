"""The `featurewire` command: `main` finds subcommands; `embed` and `status` are the client's."""
