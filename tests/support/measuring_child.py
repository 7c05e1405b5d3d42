"""A measuring process that tells how signals find it, or raises what a user can mend."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from trimtab.errors import ConfigError
from trimtab.probes.process import Tell, serve

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    serve(_answer)


def _answer(request: Mapping[str, Any], tell: Tell) -> None:
    if request["question"] == "signals":
        tell({"ignored": [signal.getsignal(each) == signal.SIG_IGN for each in NUMBERS]})
    else:
        raise ConfigError("a value is wrong.", where="file:3", hint="Take another.")
