"""The process that measures what could kill it. `client.asked` starts it and reads its answers.

One line of JSON on stdin is the request; each line on stdout is an answer, the last one
`{"done": true}`, or `{"error": …, "is_out_of_memory": …}`. It ends when its stdin is closed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trimtab.data.batches import micro_batch
from trimtab.data.rows import TokenRow
from trimtab.engine.building import batching
from trimtab.engine.memory import peak_memory_bytes
from trimtab.errors import TrimtabError
from trimtab.hyperparameters.config import Precision
from trimtab.models.foreign import first_sentence
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.models.source import ModelSource
from trimtab.planning.settings import Settings
from trimtab.probes.bench import Bench, make_bench
from trimtab.probes.handover import rows_from_bytes
from trimtab.probes.noise_scale import micro_batch_norms
from trimtab.probes.precision import LostUpdates, precision_outcomes
from trimtab.probes.rate_range import range_outcomes
from trimtab.probes.resident import begin_peak, held_bytes
from trimtab.probes.trials import run_trial

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_FIRST_TO_GO = "1000"
Tell = Callable[[Mapping[str, Any]], None]


def main() -> None:
    """Read the request, measure, answer."""
    serve(_measure)


def _measure(request: Mapping[str, Any], tell: Tell) -> None:
    for answer in measured(request):
        tell(answer)


def serve(answer: Callable[[Mapping[str, Any], Tell], None]) -> None:
    """Read one request, write what is told while it is answered, and how that ended."""
    answers = _keep_stdout_for_answers()
    with suppress(OSError):
        _OOM_SCORE.write_text(_FIRST_TO_GO, encoding="ascii")
    request = json.loads(_read_line())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        answer(request, partial(_write, answers))
        _write(answers, {"done": True})
    except TrimtabError as error:
        _write(answers, {**_failure(error.what, error), "user_error": error.to_json()})
    except Exception as error:
        _write(answers, _failure(first_sentence(error), error))


def measured(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers to a request, as mappings that JSON can write."""
    settings = Settings.from_values(request["settings"])
    source = ModelSource(**{**request["source"], "folder": Path(request["source"]["folder"])})
    torch.set_num_threads(request["num_threads"])
    rows = handed_rows(request)
    match request["question"]:
        case "trials":
            yield from _trials(settings, source, rows, request["trials"])
        case "precision":
            yield from _precision(settings, source, rows, request)
        case "rate range":
            yield from _rate_range(settings, source, rows, request)
        case "noise scale":
            yield from _noise_scale(settings, source, rows, request)


def handed_rows(request: Mapping[str, Any]) -> list[TokenRow]:
    """The rows that came with the request."""
    with os.fdopen(request["rows_fd"], "rb") as handed_over:
        return rows_from_bytes(handed_over.read())


def _trials(
    settings: Settings, source: ModelSource, rows: list[TokenRow], trials: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    device = torch.device(settings.device)
    base_bytes = held_bytes(device)
    is_reset = begin_peak(device)
    bench = make_bench(settings, source)
    yield {
        "base_bytes": base_bytes,
        "loaded_bytes": peak_memory_bytes(device),
        "is_peak_reset": is_reset,
    }
    for trial in trials:
        outcome = run_trial(
            bench,
            micro_batch(rows, trial["units"], batching(settings)),
            activation_checkpointing=trial["activation_checkpointing"],
            num_micro_batches=trial["num_micro_batches"],
        )
        yield asdict(outcome)


def _precision(
    settings: Settings, source: ModelSource, rows: list[TokenRow], request: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    def make(precision: Precision) -> Bench:
        return make_bench(
            replace(settings, precision=precision, activation_checkpointing="off"), source
        )

    batch = micro_batch(rows, request["units"], batching(settings))
    for outcome in precision_outcomes(make, batch, request["precisions"]):
        if isinstance(outcome, LostUpdates):
            yield {"lost_update_share": outcome.share}
        else:
            yield asdict(outcome)


def _rate_range(
    settings: Settings, source: ModelSource, rows: list[TokenRow], request: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    bench = make_bench(settings, source)
    micro_batches = [
        micro_batch(rows, group, batching(settings)) for group in request["micro_batches"]
    ]
    for outcome in range_outcomes(bench, micro_batches, request["rates"]):
        yield asdict(outcome)


def _noise_scale(
    settings: Settings, source: ModelSource, rows: list[TokenRow], request: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    groups, number = request["micro_batches"], settings.gradient_accumulation_steps
    updates = (
        [micro_batch(rows, group, batching(settings)) for group in groups[start : start + number]]
        for start in range(0, len(groups), number)
    )
    for norms in micro_batch_norms(make_bench(settings, source), updates):
        yield asdict(norms)


def _failure(sentence: str, error: Exception) -> dict[str, Any]:
    cause = error.__cause__ or error
    return {"error": sentence.rstrip("."), "is_out_of_memory": is_out_of_memory(cause)}


def _keep_stdout_for_answers() -> int:
    """A descriptor of stdout for answers alone; what libraries print goes to stderr."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _write(answers: int, answer: Mapping[str, Any]) -> None:
    left = json.dumps(answer).encode() + b"\n"
    while left:
        left = left[os.write(answers, left) :]


def _read_line() -> bytes:
    """One line of stdin, read past Python's buffer, so that a thread can wait for its end."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            os._exit(1)
        line += piece
    return line


def _end_with_stdin() -> None:
    while os.read(0, 1 << 16):
        pass
    os._exit(1)
