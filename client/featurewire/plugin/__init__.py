"""What the other distributions of Featurewire build on; applications need none of it.

They are released with the client, in one version. `featurewire.manifest` reads what a version says
of itself, and the messages of the wire are in `featurewire._tfs`.

    arguments     the parser, with one line about wrong usage, and the types of values
    environment   options that a variable can give
    credentials   the options about TLS and the token
    wording       the library's errors in the words of a command line
    interrupts    Ctrl-C and SIGTERM as `KeyboardInterrupt`
    files         files that survive a crash, and folders that are named by a number
    images        which files of a folder are images
    target        which servers a target names
    server        one server, asked about one model

Only `server` imports gRPC, so that a command line prints its help at once.
"""
