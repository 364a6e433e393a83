"""`python -m ehe2 kit FOLDER` and `python -m ehe2 ledger FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from .kit import run_kit
from .ledger import verify_ledger_file

USAGE = "usage: python -m ehe2 kit FOLDER | python -m ehe2 ledger FILE"


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "kit":
        return 0 if run_kit(Path(arguments[1])) else 1
    if len(arguments) == 2 and arguments[0] == "ledger":
        return 0 if verify_ledger_file(Path(arguments[1])) else 1
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
