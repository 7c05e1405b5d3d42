"""Held-out prompts, and what a model answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from trimtab.data.rows import Conversation, RowError, TokenRow
from trimtab.data.streaming import good_rows
from trimtab.data.templates import TemplateChoice
from trimtab.data.tokens import prompt_ids, prompt_text, reference_text
from trimtab.models.adapters import Model
from trimtab.models.generation import generate_greedy
from trimtab.models.pad_token import end_of_turn_token_ids
from trimtab.planning.settings import Settings
from trimtab.workflow.materials import Materials
from trimtab.workflow.training_rows import TrainingRows


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """A prompt as its row words it and as the model's tokens, with the row's own answer."""

    text: str
    token_ids: tuple[int, ...]
    reference: str


def sample_prompts(
    materials: Materials, rows: TrainingRows, settings: Settings
) -> tuple[SamplePrompt, ...]:
    """`report_samples` prompts of held-out rows, evenly spread; of training rows where none is.

    Prompts that are empty, or that leave no room for an answer within `max_length`, are passed
    over.
    """
    if settings.report_samples == 0:
        return ()
    corpus = materials.corpus
    chosen = rows.train
    if rows.eval:
        chosen = rows.eval
        corpus = materials.eval_corpus if materials.has_separate_eval_rows else corpus
    number = min(settings.report_samples, len(chosen))
    places = np.linspace(0, len(chosen) - 1, number).round().astype(int)
    prompts = []
    for row_id in _row_ids(chosen, places.tolist()):
        conversation = corpus.conversations[row_id]
        try:
            token_ids = prompt_ids(conversation, materials.tokenizer, corpus.template)
        except RowError:
            # A template may refuse a conversation that has no answer yet; it has no prompt then.
            continue
        if 0 < len(token_ids) < settings.max_length:
            prompts.append(
                SamplePrompt(
                    _shown(conversation, materials, corpus.template),
                    tuple(token_ids),
                    reference_text(conversation),
                )
            )
    return tuple(prompts)


def _row_ids(rows: Sequence[TokenRow], places: Sequence[int]) -> list[int]:
    """Of the rows at these places, each once; of the next where one is passed over in training."""
    row_ids: list[int] = []
    for place in places:
        found = (row.row_id for row in good_rows(rows, place) if row.row_id not in row_ids)
        row_ids += islice(found, 1)
    return row_ids


def _shown(conversation: Conversation, materials: Materials, template: TemplateChoice) -> str:
    """The last turn before the answer, without what the template puts around it."""
    if not conversation.templated:
        return prompt_text(conversation, materials.tokenizer, template)
    answers_at = max(i for i, m in enumerate(conversation.messages) if m.role == "assistant")
    return conversation.messages[max(0, answers_at - 1)].content


def answers(
    model: Model,
    materials: Materials,
    prompts: Sequence[SamplePrompt],
    settings: Settings,
) -> list[str]:
    """The greedy answer to each prompt."""
    new_ids = generate_greedy(
        model,
        [prompt.token_ids for prompt in prompts],
        max_new_tokens=settings.max_new_tokens,
        eos_token_ids=end_of_turn_token_ids(
            materials.tokenizer, materials.corpus.template.source_text
        ),
        pad_token_id=settings.pad_token_id,
    )
    return [str(materials.tokenizer.decode(ids, skip_special_tokens=True)) for ids in new_ids]
