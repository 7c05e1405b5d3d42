"""While a run is written, nobody else writes it, and everybody can read it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import tiny_config

import trimtab
from trimtab.engine.observer import Silent
from trimtab.report.collect import collect
from trimtab.runs.records import UpdateRecord


def test_a_second_writer_is_refused_by_pid_and_readers_are_not(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, report_samples=0)
    run = Path(config["output_dir"])
    told: list[str] = []

    class Meddling(Silent):
        def updated(self, record: UpdateRecord, num_steps: int) -> None:
            if record.step != 3:
                return
            with pytest.raises(trimtab.ConfigError, match=f"process {os.getpid()}"):
                trimtab.resume(run)
            with pytest.raises(trimtab.ConfigError, match="never overwritten"):
                trimtab.train(config)
            command = [sys.executable, "-m", "trimtab", "resume", str(run)]
            other = subprocess.run(command, capture_output=True, text=True, check=False)
            assert other.returncode == 2
            told.append(other.stderr)
            assert collect(run).is_being_written
            assert trimtab.write_report(run).is_file()
            assert trimtab.inspect(config).data.num_train_examples > 0
            with pytest.raises(trimtab.ConfigError, match="no result"):
                trimtab.generate(run, ["a question"])

    summary = trimtab.train(config, observer=Meddling())
    assert f"being written by process {os.getpid()}" in told[0]
    assert "Traceback" not in told[0]
    assert summary.status == "done"
    assert not collect(run).is_being_written
