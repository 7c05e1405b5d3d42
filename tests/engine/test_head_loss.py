from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trimtab.engine import head_loss
from trimtab.engine.head_loss import head_losses, summed_head_loss

NUM_POSITIONS, NUM_FEATURES, VOCABULARY = 37, 24, 101


def case(dtype: torch.dtype, *, bias: bool = True) -> tuple[nn.Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(NUM_FEATURES, VOCABULARY, bias=bias)
    for parameter in head.parameters():
        nn.init.normal_(parameter, generator=generator)
        parameter.data = parameter.data.bfloat16()
    hidden = torch.randn(NUM_POSITIONS, NUM_FEATURES, generator=generator).bfloat16()
    targets = torch.randint(VOCABULARY, (NUM_POSITIONS,), generator=generator)
    return head.to(dtype), hidden.to(dtype).requires_grad_(), targets


def plain_loss(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = head(hidden)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return cross_entropy(logits.to(wide), targets, reduction="sum")


def loss_and_gradients(of: Any, dtype: torch.dtype, *, bias: bool = True) -> list[Tensor]:
    head, hidden, targets = case(dtype, bias=bias)
    loss = of(head, hidden, targets)
    (loss / NUM_POSITIONS).backward()
    gradients = [tensor.grad for tensor in (hidden, *head.parameters())]
    return [loss.detach(), *(gradient for gradient in gradients if gradient is not None)]


def relative_errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [float((x.double() - y).norm() / y.norm()) for x, y in zip(found, exact, strict=True)]


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many blocks":
        monkeypatch.setattr(head_loss, "LOGITS_BLOCK_ELEMENTS", 10 * VOCABULARY)
        monkeypatch.setattr(head_loss, "CHUNK_ELEMENTS", {"cpu": 3 * VOCABULARY, "cuda": 1})


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("bias", [True, False])
def test_in_fp32_it_is_the_cross_entropy_of_the_logits(bias: bool) -> None:
    exact = loss_and_gradients(plain_loss, torch.float64, bias=bias)
    found = loss_and_gradients(summed_head_loss, torch.float32, bias=bias)
    assert max(relative_errors(found, exact)) < 1e-6


@pytest.mark.usefixtures("blocks")
def test_in_bf16_it_is_as_near_as_what_it_stands_for() -> None:
    exact = loss_and_gradients(plain_loss, torch.float64)
    found = relative_errors(loss_and_gradients(summed_head_loss, torch.bfloat16), exact)
    theirs = relative_errors(loss_and_gradients(plain_loss, torch.bfloat16), exact)
    for our_error, their_error in zip(found, theirs, strict=True):
        assert our_error < 1.2 * their_error + 1e-6


@pytest.mark.usefixtures("blocks")
def test_under_autocast_gradients_have_the_dtypes_of_what_they_are_of() -> None:
    exact = loss_and_gradients(plain_loss, torch.float64)
    head, hidden, targets = case(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = summed_head_loss(head, hidden, targets)
    (loss / NUM_POSITIONS).backward()
    assert head.bias is not None
    gradients = [hidden.grad, head.weight.grad, head.bias.grad]
    assert {gradient.dtype for gradient in gradients if gradient is not None} == {torch.float32}
    found = [gradient for gradient in gradients if gradient is not None]
    assert max(relative_errors(found, exact[1:])) < 1e-2


@pytest.mark.usefixtures("blocks")
def test_losses_of_positions_add_up_to_the_loss() -> None:
    head, hidden, targets = case(torch.float32)
    losses = head_losses(head, hidden, targets)
    assert not losses.requires_grad
    assert torch.allclose(losses, cross_entropy(head(hidden), targets, reduction="none"), rtol=1e-5)
    assert torch.allclose(losses.sum(), summed_head_loss(head, hidden, targets), rtol=1e-6)


def test_a_frozen_head_gets_no_gradient() -> None:
    head, hidden, targets = case(torch.float32)
    head.requires_grad_(False)
    summed_head_loss(head, hidden, targets).backward()
    assert head.weight.grad is None
    assert hidden.grad is not None


def test_a_number_that_is_not_finite_is_told() -> None:
    head, hidden, targets = case(torch.float32)
    with torch.no_grad():
        hidden[3] = float("nan")
    loss = summed_head_loss(head, hidden, targets)
    loss.backward()
    assert torch.isnan(loss)
    assert torch.isnan(head.weight.grad).any()


def test_no_position_is_no_loss() -> None:
    head, hidden, targets = case(torch.float32)
    loss = summed_head_loss(head, hidden[:0], targets[:0])
    loss.backward()
    assert float(loss.detach()) == 0.0


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("is_autocast", [False, True], ids=["", "autocast"])
def test_without_gradients_none_is_made_and_the_loss_is_the_same(
    dtype: torch.dtype, is_autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, hidden, targets = case(dtype)
    made: list[bool] = []
    real = head_loss._block_losses

    def block_losses(logits: Tensor, targets: Tensor, becomes_gradient: bool) -> Tensor:
        made.append(becomes_gradient)
        return real(logits, targets, becomes_gradient)

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_autocast):
        loss = summed_head_loss(head, hidden, targets)
        monkeypatch.setattr(head_loss, "_block_losses", block_losses)
        with torch.no_grad():
            found = summed_head_loss(head, hidden, targets)
    assert torch.equal(found, loss)
    assert set(made) == {False}
