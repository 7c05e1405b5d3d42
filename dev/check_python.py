"""Exit with one line where this Python is too old for trimtab. Runs on any Python."""

import sys

if sys.version_info[:2] < (3, 11):  # noqa: UP036
    sys.exit(
        "trimtab needs Python 3.11 or newer, and this is "
        + ".".join(map(str, sys.version_info[:2]))
        + ": name another one, as in `make demo PYTHON=python3.12`."
    )
