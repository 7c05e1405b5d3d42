"""Tests of several ranks: two processes that live as long as a module's tests and run its cases.

A case is a function `(ranks, folder) -> JSON` of a module of tests or support, named by its module
and name; both processes call it at once with their own `Ranks`, and both answers come back.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.children import child_environment

NUM_RANKS = 2


class RankPair:
    """The test's end of both processes."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def run(self, case: str, **arguments: Any) -> list[Any]:
        """Both ranks' answers to `module:function`. Raises AssertionError where one failed."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps([case, arguments]) + "\n")
            process.stdin.flush()
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            answers.append(json.loads(process.stdout.readline()))
        errors = [answer["error"] for answer in answers if "error" in answer]
        assert not errors, "\n".join(errors)
        return [answer["value"] for answer in answers]


@contextmanager
def rank_pair() -> Iterator[RankPair]:
    """Two processes, which end with the context."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "support.ranks", str(rank), f"{folder}/store"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=child_environment(),
            )
            for rank in range(NUM_RANKS)
        ]
        try:
            yield RankPair(processes)
        finally:
            for process in processes:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.close()
                process.wait()
                process.stdout.close()


def main() -> None:
    import torch
    import torch.distributed as dist

    from trimtab.engine.distributed import Ranks

    torch.set_num_threads(1)
    rank, store = int(sys.argv[1]), sys.argv[2]
    # Models are built on each rank before the group is there: transformers writes on one only.
    from support.models import packed_model

    packed_model()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=NUM_RANKS)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        case, arguments = json.loads(line)
        module, _, name = case.partition(":")
        shards = arguments.pop("shards", False)
        try:
            function = getattr(importlib.import_module(module), name)
            answer = {"value": function(Ranks(rank, NUM_RANKS, shards), **arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
