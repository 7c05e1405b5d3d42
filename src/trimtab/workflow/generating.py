"""What the base and the tuned model of a run answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from trimtab.data.rows import Conversation, Message
from trimtab.data.templates import TemplateChoice
from trimtab.data.tokens import prompt_ids
from trimtab.engine.observer import Observer, Silent
from trimtab.errors import ConfigError
from trimtab.models.adapters import Model, load_adapter
from trimtab.models.description import max_positions
from trimtab.models.generation import generate_greedy
from trimtab.models.loading import load_model, load_tokenizer
from trimtab.models.pad_token import end_of_turn_token_ids
from trimtab.models.safety import check_adapter_folder, check_model_folder
from trimtab.models.source import ModelSource, locate
from trimtab.planning.settings import Settings
from trimtab.probes.device import choose_device
from trimtab.runs.folder import RunFolder, open_run
from trimtab.runs.records import DataRecord
from trimtab.workflow.records import read_plan, read_summary


@dataclass(frozen=True, slots=True)
class Answer:
    """A prompt with what the base and the tuned model answer to it."""

    prompt: str
    base: str
    tuned: str


def generate(
    run: str | Path,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 128,
    device: str = "auto",
    observer: Observer | None = None,
) -> list[Answer]:
    """Greedy answers of the base model and of the run's result, prompt by prompt.

    Prompts are put through the chat template where the run's rows were. Raises ConfigError where
    the folder is no run, has handed nothing over, or holds a result that was tampered with.
    """
    observer = observer or Silent()
    folder = open_run(Path(run))
    plan = read_plan(folder)
    settings = plan.settings()
    result = result_of(folder, settings)
    observer.activity("loading the model")
    tokenizer = load_tokenizer(result)
    token_ids = [
        prompt_ids(conversation, tokenizer, template)
        for conversation, template in _conversations(prompts, folder, tokenizer.chat_template)
    ]
    source = locate(
        plan.paths.get("model", settings.model), trust_remote_code=settings.trust_remote_code
    )
    torch_device = choose_device(device)
    base = load_model(source, dtype=torch.float32, device=torch_device, packed_attention=False)
    _refuse_too_long(token_ids, max_new_tokens, base)

    own = tokenizer.chat_template
    template = own if isinstance(own, str) else None

    def answered(model: Model) -> list[str]:
        # One at a time: an answer must not depend on the prompts beside it.
        texts = []
        for ids in token_ids:
            (new_ids,) = generate_greedy(
                model,
                [ids],
                max_new_tokens=max_new_tokens,
                eos_token_ids=end_of_turn_token_ids(tokenizer, template),
                pad_token_id=settings.pad_token_id,
            )
            texts.append(str(tokenizer.decode(new_ids, skip_special_tokens=True)))
            observer.advanced(1)
        return texts

    observer.activity("asking the base model", len(token_ids))
    base_answers = answered(base)
    observer.activity("asking the tuned model", len(token_ids))
    tuned_answers = answered(_tuned(base, result, settings))
    observer.activity_done()
    return [Answer(*row) for row in zip(prompts, base_answers, tuned_answers, strict=True)]


def result_of(folder: RunFolder, settings: Settings) -> ModelSource:
    """What the run has handed over. Raises ConfigError where that is nothing."""
    result = folder.adapter if settings.method == "lora" else folder.model
    if not result.is_dir():
        raise _no_result(folder)
    if settings.method == "lora":
        check_adapter_folder(result)
    else:
        check_model_folder(result, trust_remote_code=settings.trust_remote_code)
    return ModelSource(str(result), result, trust_remote_code=settings.trust_remote_code)


def _no_result(folder: RunFolder) -> ConfigError:
    """With what the run's own last word says of it."""
    what, hint = "the run has handed no result over", f"Go on with it: trimtab resume {folder.root}"
    summary = read_summary(folder)
    if summary is not None and summary.status == "stopped":
        what = f"{what}: it was stopped ({summary.stopped_by})"
        hint = "Train anew with what stopped it changed; report.html in the folder shows where."
    return ConfigError(f"{what}.", where=str(folder.root), hint=hint)


def _tuned(base: PreTrainedModel, result: ModelSource, settings: Settings) -> Model:
    if settings.method == "lora":
        return load_adapter(base, result.folder)
    return load_model(result, dtype=torch.float32, device=base.device, packed_attention=False)


def _refuse_too_long(
    token_ids: Sequence[Sequence[int]], max_new_tokens: int, model: PreTrainedModel
) -> None:
    positions = max_positions(model.config)
    longest = max(len(ids) for ids in token_ids)
    if positions is not None and longest + max_new_tokens > positions:
        raise ConfigError(
            f"a prompt of {longest:,} tokens and {max_new_tokens:,} new ones are more than the "
            f"model's {positions:,} positions.",
            hint="Shorten the prompt or lower --max-new-tokens.",
        )


def _conversations(
    prompts: Sequence[str], folder: RunFolder, chat_template: str | None
) -> list[tuple[Conversation, TemplateChoice]]:
    """Each prompt as the run's own rows were put to the model."""
    data = DataRecord.from_json(json.loads(folder.data_json.read_text(encoding="utf-8")))
    template = TemplateChoice(data.template, chat_template, "the run's own")
    answer = Message("assistant", "")
    return [
        (Conversation((Message("user", prompt), answer), (False, True), data.templated), template)
        for prompt in prompts
    ]
