"""Shared code for the other distributions of Featurewire. Applications do not need it.

All distributions are released together, with one version number. Two more modules are shared:
`featurewire.manifest` reads manifests, and `featurewire._tfs` has the protobuf messages.

    arguments     argument parser with one-line errors, and types of values
    environment   options that can be set by environment variables
    credentials   options for TLS and the token
    wording       the library's errors in the terms of a command line
    interrupts    Ctrl-C and SIGTERM as `KeyboardInterrupt`
    files         sync files to disk, and list the folders of versions
    images        find the images in a folder
    target        split a target into its servers
    server        one server and one model, for tools that manage servers

Only `server` imports gRPC, so that commands print their help at once.
"""
