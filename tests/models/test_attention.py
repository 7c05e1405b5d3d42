from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny import ARCHITECTURES, SLIDING_WINDOW, VOCABULARY_SIZE
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from trimtab.models import attention
from trimtab.models.attention import document_arguments, document_attention, document_mask

LENGTHS = (5, 1, 21, 8, 9)
TOLERANCE = 2e-6


class FourHeadsOnTwo(nn.Module):
    is_causal = True
    num_key_value_groups = 2


def random_documents() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(VOCABULARY_SIZE, (length,), generator=generator) for length in LENGTHS]


@torch.no_grad()
def solo_logits(model: Any, documents: list[Tensor]) -> list[Tensor]:
    return [model(input_ids=document[None], use_cache=False).logits[0] for document in documents]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_joined_documents_have_the_logits_that_each_has_alone(architecture: str, load: Any) -> None:
    documents = random_documents()
    alone = torch.cat(solo_logits(load(architecture, packed=False), documents))
    positions = torch.cat([torch.arange(len(document)) for document in documents])
    with torch.no_grad():
        joined = load(architecture)(
            input_ids=torch.cat(documents)[None],
            position_ids=positions[None],
            use_cache=False,
            **document_arguments(LENGTHS),
        ).logits[0]
    torch.testing.assert_close(joined, alone, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_model_takes_padded_batches(architecture: str, side: Any, load: Any) -> None:
    documents = random_documents()
    model = load(architecture)
    real = pad_sequence([torch.ones_like(ids) for ids in documents], True, 0, side)
    with torch.no_grad():
        padded = model(
            input_ids=pad_sequence(documents, True, 5, side),
            attention_mask=real,
            position_ids=(real.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).logits
    for row, mask, alone in zip(
        padded, real, solo_logits(load(architecture, packed=False), documents), strict=True
    ):
        torch.testing.assert_close(row[mask.bool()], alone, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("sliding_window", [None, 1, 4, 21, 64])
def test_it_is_the_textbook_formula_inside_each_document(sliding_window: int | None) -> None:
    generator = torch.Generator().manual_seed(2)
    total, scaling = sum(LENGTHS), 0.7
    query = torch.randn(2, 4, total, 8, generator=generator)
    key, value = (torch.randn(2, 2, total, 8, generator=generator) for _ in range(2))
    output, _ = document_attention(
        FourHeadsOnTwo(),
        query,
        key,
        value,
        None,
        scaling=scaling,
        sliding_window=sliding_window,
        **document_arguments(LENGTHS),
    )
    document = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    distance = torch.arange(total)[:, None] - torch.arange(total)[None, :]
    seen = (document[:, None] == document[None, :]) & (distance >= 0)
    if sliding_window is not None:
        seen &= distance < sliding_window
    keys, values = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)
    scores = (query @ keys.transpose(2, 3) * scaling).masked_fill(~seen, -torch.inf)
    expected = (scores.softmax(-1) @ values).transpose(1, 2)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "most_keys"), [("llama", max(LENGTHS)), ("mistral", 2 * SLIDING_WINDOW - 1)]
)
def test_no_block_is_wider_than_a_document_or_two_windows(
    architecture: str, most_keys: int, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_keys = []
    plain = attention.sdpa_attention_forward

    def spy(module: nn.Module, query: Tensor, key: Tensor, *rest: Any, **named: Any) -> Any:
        num_keys.append(key.shape[2])
        return plain(module, query, key, *rest, **named)

    monkeypatch.setattr(attention, "sdpa_attention_forward", spy)
    documents = random_documents()
    with torch.no_grad():
        load(architecture)(
            input_ids=torch.cat(documents)[None],
            position_ids=torch.cat([torch.arange(length) for length in LENGTHS])[None],
            **document_arguments(LENGTHS),
        )
    assert max(num_keys) == most_keys


def test_joined_rows_get_no_mask() -> None:
    assert document_mask(batch_size=1, q_length=4096, kv_length=4096) is None


def test_dropout_is_applied() -> None:
    query = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(3))
    key = value = query[:, :2]
    kept, dropped = (
        document_attention(FourHeadsOnTwo(), query, key, value, None, dropout=dropout)[0]
        for dropout in (0.0, 0.9)
    )
    assert not torch.allclose(kept, dropped)


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_what_it_cannot_do_is_refused_and_not_left_out(name: str) -> None:
    heads = torch.zeros(1, 2, 3, 8)
    arguments: dict[str, Any] = {name: 30.0}
    with pytest.raises(ValueError, match=name):
        document_attention(FourHeadsOnTwo(), heads, heads, heads, None, **arguments)
