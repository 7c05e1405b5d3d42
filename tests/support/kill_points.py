"""Numbered points at which a process that writes a folder may be killed: each change on disk.

Points lie before each creation, rename, removal, fsync and truncation, before and in the middle of
each write, and before, in the middle of and after each safetensors file, which is written whole by
a library. Killed there, the folder is what a kill between two system calls leaves.
"""

from __future__ import annotations

import builtins
import io
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch

from support.trees import tree_digest

CHANGING = ("rename", "replace", "unlink", "remove", "mkdir", "rmdir", "truncate", "ftruncate")
_RANDOM = re.compile(r"(?<=\.staged-)[0-9a-f]{16}")


class KillPoints:
    """Counts the points under `root`; at number `kill_at` the process kills itself."""

    def __init__(self, root: Path, kill_at: int | None, *, notes_states: bool) -> None:
        self.labels: list[str] = []
        self.states: list[str] = []
        self._notes_states = notes_states
        self._root = str(root)
        self._kill_at = kill_at

    def install(self) -> None:
        """Put the points around this process's calls, for good: it is one that is to die."""
        for name in CHANGING:
            setattr(os, name, self._before(name, getattr(os, name)))
        os.fsync = self._before("fsync", os.fsync)
        io.open = builtins.open = self._opening(io.open)  # type: ignore[assignment]
        safetensors.torch.serialize_file = self._serializing(safetensors.torch.serialize_file)

    def at(self, label: str, path: str) -> None:
        if not path.startswith(self._root):
            return
        inside = _RANDOM.sub("", path.removeprefix(self._root))
        self.labels.append(f"{label} {inside}")
        if self._notes_states:
            self.states.append(tree_digest(Path(self._root)))
        if len(self.labels) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _before(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, dir_fd: int | None = None, **named: Any) -> Any:
            self.at(name, _path(target, dir_fd))
            if dir_fd is not None:
                named["dir_fd"] = dir_fd
            return original(target, *arguments, **named)

        return call

    def _opening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set("wxa+") & set(mode):
                return original(file, mode, *arguments, **named)
            self.at("create", _path(file, None))
            return _Stream(original(file, mode, *arguments, **named), self, _path(file, None))

        return call

    def _serializing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensors: Any, file: Any, *arguments: Any, **named: Any) -> Any:
            path = Path(file)
            self.at("before safetensors", str(path))
            original(tensors, file, *arguments, **named)
            content = path.read_bytes()
            path.unlink()
            with io.FileIO(path, "w") as stream:
                stream.write(content[: len(content) // 2])
                self.at("in safetensors", str(path))
                stream.write(content[len(content) // 2 :])
            self.at("after safetensors", str(path))

        return call


class _Stream:
    """A file opened for writing whose writes can be cut in the middle."""

    def __init__(self, stream: Any, points: KillPoints, path: str) -> None:
        self._stream, self._points, self._path = stream, points, path

    def write(self, content: Any) -> int:
        self._points.at("write", self._path)
        half = len(content) // 2
        self._stream.write(content[:half])
        self._stream.flush()
        self._points.at("in write", self._path)
        self._stream.write(content[half:])
        return len(content)

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _path(target: Any, dir_fd: int | None) -> str:
    if isinstance(target, int):
        return str(Path(f"/proc/self/fd/{target}").readlink())
    folder = Path.cwd() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
    return str(folder / os.fspath(target))
