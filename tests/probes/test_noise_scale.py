from __future__ import annotations

import pytest
import torch
from support.batches import Layout, ragged_rows
from support.benches import standing, tiny_bench

from trimtab.data.rows import MicroBatch
from trimtab.engine.loss import summed_loss
from trimtab.engine.precision import LossScale
from trimtab.errors import GuardStop
from trimtab.models.adapters import causal_model
from trimtab.planning.noise import MicroBatchNorms, noise_scale
from trimtab.probes import noise_scale as probe
from trimtab.probes.bench import Bench
from trimtab.probes.noise_scale import micro_batch_norms


def ragged_updates(number: int) -> list[list[MicroBatch]]:
    """Updates of 6 ragged rows in 3 micro-batches."""
    lengths = [5 + index % 11 for index in range(6 * number)]
    # Of few different tokens, so that gradients have something in common.
    rows = ragged_rows(lengths, vocabulary_size=9)
    batches = [Layout("free").collate(rows[start : start + 2]) for start in range(0, len(rows), 2)]
    return [batches[start : start + 3] for start in range(0, len(batches), 3)]


def gradient_by_hand(bench: Bench, micro_batches: list[MicroBatch]) -> torch.Tensor:
    loss = torch.stack([summed_loss(bench.model, batch) for batch in micro_batches]).sum()
    num_tokens = sum(batch.num_trainable_tokens for batch in micro_batches)
    gradients = torch.autograd.grad(loss / num_tokens, bench.optimizer.parameters)
    return torch.cat([each.flatten() for each in gradients])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_norms_are_those_of_gradients_taken_by_hand(method: str) -> None:
    bench, updates = tiny_bench(method=method, max_grad_norm=0.01), ragged_updates(2)
    for micro_batches, found in zip(updates, micro_batch_norms(bench, updates), strict=True):
        parts = [gradient_by_hand(bench, [batch]) for batch in micro_batches]
        whole = gradient_by_hand(bench, micro_batches)
        assert found.num_examples == 6
        assert found.norms == pytest.approx([float(part.norm()) for part in parts], rel=1e-5)
        assert found.norm == pytest.approx(float(whole.norm()), rel=1e-5)
        tokens = [batch.num_trainable_tokens for batch in micro_batches]
        assert found.shares == [each / sum(tokens) for each in tokens]


def test_the_scale_is_that_of_gradients_taken_by_hand() -> None:
    bench, updates = tiny_bench(), ragged_updates(20)
    by_hand = [
        MicroBatchNorms(
            num_examples=6,
            shares=[
                batch.num_trainable_tokens / sum(each.num_trainable_tokens for each in micro)
                for batch in micro
            ],
            norms=[float(gradient_by_hand(bench, [batch]).norm()) for batch in micro],
            norm=float(gradient_by_hand(bench, micro).norm()),
        )
        for micro in updates
    ]
    expected, found = noise_scale(by_hand), noise_scale([*micro_batch_norms(bench, updates)])
    assert expected is not None
    assert found is not None
    assert found.examples == pytest.approx(expected.examples, rel=1e-3)
    assert found.high_examples == pytest.approx(expected.high_examples, rel=1e-3)


def test_everything_is_left_as_it_was_even_half_way() -> None:
    bench = tiny_bench(method="lora", lora_dropout=0.1)
    before = standing(bench)
    list(micro_batch_norms(bench, ragged_updates(2)))
    assert standing(bench) == before
    unfinished = micro_batch_norms(bench, ragged_updates(2))
    next(unfinished)
    unfinished.close()
    assert standing(bench) == before


def test_an_overflow_is_gone_over_again_at_a_lower_loss_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, updates = tiny_bench(), ragged_updates(2)
    head = causal_model(bench.model).get_output_embeddings()
    with torch.no_grad():
        head.weight.mul_(64.0)
    expected = [*micro_batch_norms(bench, updates)]
    loss_scale = LossScale(scale=2.0**127)
    monkeypatch.setattr(probe, "first_loss_scale", lambda _: loss_scale)
    found = [*micro_batch_norms(bench, updates)]
    assert loss_scale.scale < 2.0**127
    for one, other in zip(found, expected, strict=True):
        assert one.norms == pytest.approx(other.norms, rel=1e-3)
        assert one.norm == pytest.approx(other.norm, rel=1e-3)


def test_a_gradient_that_is_no_number_ends_it() -> None:
    bench = tiny_bench()
    with torch.no_grad():
        bench.optimizer.parameters[0].fill_(torch.inf)
    with pytest.raises(GuardStop, match="not finite in fp32"):
        list(micro_batch_norms(bench, ragged_updates(1)))
