"""`python -m featurewire_server`: the server without the `featurewire` command."""

import sys

from featurewire_server.command import serve

if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
