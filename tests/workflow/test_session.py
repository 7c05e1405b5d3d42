from __future__ import annotations

from pathlib import Path

import pytest
from support.jobs import first_state, run_to_end, tiny_job
from torch.multiprocessing.reductions import StorageWeakRef

from trimtab.workflow.session import Progress


@pytest.mark.parametrize(
    ("method", "precision"), [("full", "bf16"), ("full", "fp32"), ("lora", "bf16")]
)
def test_a_job_that_is_let_go_keeps_no_memory(tmp_path: Path, method: str, precision: str) -> None:
    job = tiny_job(tmp_path / "checkpoints", method=method, precision=precision, num_train_steps=1)
    run_to_end(job)
    states = [entries for one in job.optimizer.optimizers for entries in one.state.values()]
    held = [*job.model.parameters(), *job.optimizer.parameters]
    held += [value for entries in states for value in entries.values()]
    memory = [StorageWeakRef(tensor.untyped_storage()) for tensor in held]
    del held, states
    Progress(job, first_state(job)).release_job()
    assert all(each.expired() for each in memory)
