from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.batches import ragged_rows
from support.jobs import tiny_job
from support.models import packed_model

from trimtab.data.batches import eval_batches
from trimtab.engine.evaluation import Evaluation, evaluate


def evaluated(tmp_path: Path, batch_size: int, **changes: object) -> Evaluation:
    job = tiny_job(tmp_path, **changes)
    return evaluate(
        packed_model(),
        eval_batches(ragged_rows(), batch_size, job.batching),
        precision="fp32",
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("changes", [{}, {"padding": "longest"}, {"packing": True}], ids=str)
def test_the_loss_does_not_depend_on_the_batch_size(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    reference = evaluated(tmp_path, 1)
    for batch_size in (2, 3, 8):
        measured = evaluated(tmp_path, batch_size, **changes)
        assert measured.eval_loss == pytest.approx(reference.eval_loss, rel=1e-6)
        assert measured.num_tokens == reference.num_tokens


def test_no_gradient_and_no_change_of_mode(tmp_path: Path) -> None:
    job = tiny_job(tmp_path)
    job.model.train()
    evaluate(
        job.model,
        eval_batches(ragged_rows(), 4, job.batching),
        precision="fp32",
        device=torch.device("cpu"),
    )
    assert job.model.training
    assert all(parameter.grad is None for parameter in job.model.parameters())


def test_nothing_to_evaluate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no held-out token"):
        evaluate(packed_model(), [], precision="fp32", device=torch.device("cpu"))
