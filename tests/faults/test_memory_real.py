"""Memory that truly runs out: the CPU's allocator fails under a limit on the address space."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.faults import digest_of_tensors
from support.runs import read_jsonl, tiny_config

import trimtab

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux keeps a process to RLIMIT_AS"
)
SCRIPT = Path(__file__).parents[1] / "support" / "tight_run.py"
# Where 64 rows fail and 32 fit, with room on both sides: the two runs must halve alike (up to 28
# MiB some halve twice, from 80 on some do not at all).
ROOM_MIB = 45
NUM_STEPS = 4


def config_of(folder: Path, model: Path) -> dict[str, Any]:
    """Micro-batches of 64 rows of up to 256 tokens: activations outweigh everything else."""
    folder.mkdir()
    rows = folder / "rows.jsonl"
    with rows.open("w", encoding="utf-8") as stream:
        for number in range(256):
            completion = "lazy dog " * (100 if number % 2 == 0 else 60)
            stream.write(json.dumps({"prompt": f"q {number}", "completion": completion}) + "\n")
    sizes = {"per_device_train_batch_size": 64, "global_batch_size": 64, "max_length": 256}
    return tiny_config(
        folder,
        model,
        method="full",
        eval_dataset="none",
        report_samples=0,
        activation_checkpointing="off",
        memory_limit="8GiB",
        learning_rate=1e-3,
        max_steps=NUM_STEPS,
        **sizes,
    )


def trained(config: dict[str, Any], room_mib: int, *, kills: bool = False) -> tuple[int, str]:
    """The exit status and stderr. Blocks of 64 KiB and more go back to the system when freed."""
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(config), str(room_mib), str(int(kills))],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    return finished.returncode, finished.stderr


def losses_of(run: Path) -> list[float]:
    return [line["loss"] for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]


def weights_digest(run: Path) -> str:
    return digest_of_tensors(load_file(run / "model" / "model.safetensors"))


def test_an_allocator_that_fails_halves_the_micro_batch_and_survives_a_kill(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    roomy = config_of(tmp_path / "roomy", tiny_llama_folder)
    tight = config_of(tmp_path / "tight", tiny_llama_folder)
    killed = config_of(tmp_path / "killed", tiny_llama_folder)
    trimtab.train(roomy)
    status, errors = trained(tight, ROOM_MIB)
    assert status == 0, errors
    status, errors = trained(killed, ROOM_MIB, kills=True)
    assert status == -signal.SIGKILL, errors

    run = Path(tight["output_dir"])
    changed = [
        line for line in read_jsonl(run / "events.jsonl") if line["event"] == "recipe changed"
    ]
    assert changed[0]["step"] == 3
    assert changed[0]["details"]["hyperparameter"] == "per_device_train_batch_size"
    assert losses_of(run) == pytest.approx(losses_of(Path(roomy["output_dir"])), rel=1e-5)

    resumed = trimtab.resume(killed["output_dir"])
    assert "per_device_train_batch_size" in resumed.decisions_changed
    assert losses_of(Path(resumed.run)) == losses_of(run)
    assert weights_digest(Path(resumed.run)) == weights_digest(run)
