"""Verbs in a real process, and in every process that it starts, with what Python audits written
down: what is unpickled, which sockets are used, what is imported from where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WATCH = """\
import json, os, pickle, socket, sys, traceback

_log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_WATCHED = {"pickle.find_class", "socket.bind", "socket.connect", "socket.getaddrinfo",
            "socket.sendto", "socket.gethostbyname", "os.system", "import"}


def _note(event, *details):
    frames = [f"{f.filename}:{f.lineno}" for f in traceback.extract_stack(limit=12)[:-2]]
    line = {"event": event, "details": [str(d)[:300] for d in details], "stack": frames}
    os.write(_log, (json.dumps(line) + "\\n").encode())


def _audit(event, arguments):
    if event == "import":
        if arguments[1] and os.environ["AUDITED_FOLDER"] in str(arguments[1]):
            _note(event, *arguments[:2])
    elif event in _WATCHED:
        _note(event, *arguments)


def _noting(name, function):
    def noted(*arguments, **options):
        _note("pickle." + name)
        return function(*arguments, **options)
    return noted


for _name in ("dump", "dumps", "load", "loads"):
    setattr(pickle, _name, _noting(_name, getattr(pickle, _name)))
_listen = socket.socket.listen
socket.socket.listen = _noting("socket.listen", _listen)
_note("process started", sys.argv)
sys.addaudithook(_audit)
"""


@dataclass(frozen=True)
class Audit:
    """What a process did: its exit status and output, and what was noted of it and its children."""

    returncode: int
    output: str
    notes: tuple[dict[str, Any], ...]

    def of(self, *events: str) -> list[dict[str, Any]]:
        return [note for note in self.notes if note["event"].startswith(events)]


def audited(
    arguments: Sequence[str], folder: Path, *, environment: Mapping[str, str | None] = {}
) -> Audit:
    """Run Python with these arguments in `folder`; `None` takes a variable out.

    What is imported from `folder` is noted.
    """
    watch, log = folder / ".watch", folder / ".audit.jsonl"
    watch.mkdir(exist_ok=True)
    (watch / "sitecustomize.py").write_text(WATCH)
    log.unlink(missing_ok=True)
    paths = [str(watch), *(path for path in sys.path if path)]
    variables: dict[str, str | None] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "AUDIT_LOG": str(log),
        "AUDITED_FOLDER": str(folder) + os.sep,
        "TRIMTAB_CACHE": str(folder / ".cache"),
        "HF_HOME": str(folder / ".hf"),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        timeout=900,
        check=False,
    )
    notes = tuple(json.loads(line) for line in log.read_text().splitlines())
    return Audit(done.returncode, (done.stdout + done.stderr).decode(errors="replace"), notes)
