"""`python -m featurewire_exporter COMMAND …`: the commands without the client's `featurewire`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from featurewire_exporter import commands

_COMMANDS = {
    "export": commands.export,
    "inspect": commands.inspect,
    "verify": commands.verify,
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    usage = f"usage: python -m featurewire_exporter {{{','.join(_COMMANDS)}}} ..."
    if arguments and arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]](arguments[1:])
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage)
        for name, command in _COMMANDS.items():
            print(f"  {name:<8} {(command.__doc__ or '').splitlines()[0]}")
        return 0
    print(usage, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
