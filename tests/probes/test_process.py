"""The measuring process itself, on a tiny model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
import torch
from support.batches import ragged_rows
from support.settings import tiny_settings

from trimtab.planning.settings import Settings
from trimtab.probes import process
from trimtab.probes.client import PROCESS_MODULE, asked
from trimtab.probes.fork_server import ForkServer
from trimtab.probes.handover import rows_from_bytes, rows_to_bytes
from trimtab.probes.process import measured

UNITS = [[0], [3]]


@pytest.fixture(autouse=True)
def _random_state_put_back() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def request_for(question: str, folder: Path, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "question": question,
        "settings": asdict(settings_for(folder)),
        "source": {"name": "tiny", "folder": str(folder), "trust_remote_code": False},
        "num_threads": torch.get_num_threads(),
        **details,
    }


def settings_for(folder: Path) -> Settings:
    return tiny_settings(model=str(folder), method="lora", lora_dropout=0.1)


def in_process(request: dict[str, Any]) -> list[dict[str, Any]]:
    with TemporaryFile() as stream:
        stream.write(rows_to_bytes(ragged_rows()))
        stream.seek(0)
        return list(measured({**request, "rows_fd": os.dup(stream.fileno())}))


def test_rows_come_back_as_they_were_handed_over() -> None:
    rows = ragged_rows()
    for given, got in zip(rows, rows_from_bytes(rows_to_bytes(rows)), strict=True):
        assert given.row_id == got.row_id
        assert given.input_ids.tolist() == got.input_ids.tolist()
        assert given.trainable.tolist() == got.trainable.tolist()
        assert given.input_ids.dtype == got.input_ids.dtype


@pytest.mark.skipif(not ForkServer.can_serve("cpu"), reason="forks on Linux alone")
def test_it_measures_trials_in_a_process_of_its_own_forked_or_not(
    tiny_llama_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trial = {"activation_checkpointing": "full", "num_micro_batches": 2, "units": UNITS}
    request = request_for("trials", tiny_llama_folder, {"trials": [trial, trial]})
    grown = []
    with ForkServer(PROCESS_MODULE) as server:
        for forks in (server, None):
            with asked(request, ragged_rows(), server=forks) as answers:
                loaded, *outcomes = answers
            assert 0 < loaded["base_bytes"] <= loaded["loaded_bytes"]
            assert [len(outcome["update_s"]) for outcome in outcomes] == [2, 2]
            assert all(outcome["peak_bytes"] > loaded["base_bytes"] for outcome in outcomes)
            peaks = [outcome["peak_bytes"] for outcome in outcomes]
            grown.append([(peak - loaded["base_bytes"]) / 2**20 for peak in peaks])
    assert grown[0] == pytest.approx(grown[1], abs=4)
    assert capfd.readouterr() == ("", "")


def test_it_compares_number_formats(tiny_llama_folder: Path) -> None:
    details = {"precisions": ["bf16", "fp32"], "units": UNITS}
    answers = in_process(request_for("precision", tiny_llama_folder, details))
    assert [answer.get("precision") for answer in answers] == ["fp32", None, "bf16"]
    assert set(answers[1]["lost_update_share"]) == {"fp32", "bf16"}


def test_it_tests_rates_on_all_micro_batches(tiny_llama_folder: Path) -> None:
    details = {"rates": [1e-4, 1e-3], "micro_batches": [UNITS, [[1], [2]]]}
    answers = in_process(request_for("rate range", tiny_llama_folder, details))
    assert [answer["learning_rate"] for answer in answers] == [1e-4, 1e-3]


def test_it_takes_the_norms_of_each_update_and_its_micro_batches(tiny_llama_folder: Path) -> None:
    request = request_for("noise scale", tiny_llama_folder, {"micro_batches": [UNITS, [[1], [2]]]})
    request["settings"]["gradient_accumulation_steps"] = 2
    (update,) = in_process(request)
    assert (update["num_examples"], len(update["norms"]), len(update["shares"])) == (4, 2, 2)
    request["settings"]["gradient_accumulation_steps"] = 1
    assert [answer["num_examples"] for answer in in_process(request)] == [2, 2]


def test_an_error_is_told_without_a_traceback(tmp_path: Path) -> None:
    request = request_for("trials", tmp_path, {"trials": []})
    with pytest.raises(Exception, match="config") as error:
        in_process(request)
    told = process._failure("It is broken.", error.value)
    assert told == {"error": "It is broken", "is_out_of_memory": False}
    short = process._failure("It does not fit.", MemoryError())
    assert short["is_out_of_memory"]
