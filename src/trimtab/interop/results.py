"""A run's result on its way out: the weights as one model, written, read back and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer

from trimtab.engine.observer import Observer, Silent
from trimtab.interop.exporting import refuse_taken_folder
from trimtab.interop.gguf_writing import Quantization, refuse_unmappable, write_gguf
from trimtab.interop.model_card import card
from trimtab.interop.ollama import modelfile
from trimtab.models.adapters import Model, causal_model, load_adapter
from trimtab.models.generation import generate_greedy
from trimtab.models.gguf import load_gguf
from trimtab.models.loading import load_model, load_tokenizer
from trimtab.models.saving import save_merged
from trimtab.models.source import ModelSource, locate
from trimtab.planning.plan import Plan
from trimtab.runs.atomic import staged_folder, write_json
from trimtab.runs.folder import open_run
from trimtab.workflow.generating import result_of
from trimtab.workflow.records import read_plan

Kind = Literal["merged", "gguf", "ollama"]
NUM_PROMPTS: Final = 20
NUM_NEW_TOKENS: Final = 32
_CPU: Final = torch.device("cpu")
PROMPTS: Final = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "List three prime numbers.",
    "Explain why the sky is blue.",
    "Translate 'good morning' into Spanish.",
    "What is 17 plus 25?",
    "Name a famous painter.",
    "Give me a recipe for pancakes.",
    "Who wrote Hamlet?",
    "What do bees make?",
    "How many days has a week?",
    "Describe a bicycle in one sentence.",
    "What is the opposite of cold?",
    "Suggest a name for a cat.",
    "Why do leaves fall in autumn?",
    "Count from one to five.",
    "What is photosynthesis?",
    "Finish the sentence: once upon a time",
    "Is water heavier than oil?",
    "Say hello to a new colleague.",
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is written against the run's own result, both in fp32 on the CPU.

    max_logit_difference: over the tokens of the prompts. num_same_answers: prompts of which all
    greedy tokens are the same. parting_gaps: of the others, how far the run's two best logits are
    apart where the answers part; small ones are ties that rounding decides. not_compared: why
    nothing was, None where it was.
    """

    num_prompts: int
    num_new_tokens: int
    max_logit_difference: float | None
    num_same_answers: int | None
    parting_gaps: tuple[float, ...] = ()
    not_compared: str | None = None

    @property
    def sentence(self) -> str:
        if self.not_compared is not None:
            return f"Not compared with the run's result: {self.not_compared}."
        assert self.num_same_answers is not None
        same = (
            f"{self.num_same_answers} of {self.num_prompts} prompts have the same "
            f"{self.num_new_tokens} greedy tokens as the run's own result"
        )
        if self.num_same_answers < self.num_prompts:
            others = self.num_prompts - self.num_same_answers
            same += f"; {others} {'does' if others == 1 else 'do'} not"
        if self.parting_gaps:
            low, high = min(self.parting_gaps), max(self.parting_gaps)
            apart = f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
            same += f", parting where the run's two best logits are {apart} apart"
        return f"{same}. The largest difference of a logit is {self.max_logit_difference:.2g}."


@dataclass(frozen=True, slots=True)
class ExportedResult:
    """The folder that was written, what was compared, and sentences for the user."""

    folder: Path
    comparison: Comparison
    notes: tuple[str, ...]


def export_result(
    run: str | Path,
    kind: Kind,
    folder: str | Path,
    observer: Observer | None = None,
    *,
    quantization: Quantization = "f16",
) -> ExportedResult:
    """Write a run's result as merged safetensors, as GGUF, or as GGUF with an Ollama Modelfile.

    Adapters are merged in fp32. What was written is read back, and asked the same prompts as the
    run's own result. Raises ConfigError where the folder is no run or has no result, is there
    already, or where the architecture or tokenizer cannot be written; nothing is left then.
    """
    folder, observer = Path(folder), observer or Silent()
    refuse_taken_folder(folder)
    run_folder = open_run(Path(run))
    plan = read_plan(run_folder)
    result = result_of(run_folder, plan.settings())
    observer.activity("loading the model")
    tokenizer, model = _result(result, plan)
    if kind != "merged":
        refuse_unmappable(causal_model(model), tokenizer)
    observer.activity_done()
    prompts = _prompts(tokenizer)
    observer.activity("asking the run's result")
    wanted = _answers(model, tokenizer, prompts)
    observer.activity_done()
    merged = _merged(model)
    merged.generation_config = GenerationConfig.from_pretrained(result.folder)
    notes: tuple[str, ...] = ()
    observer.activity("writing and reading back")
    with staged_folder(folder) as staged:
        if kind == "merged":
            save_merged(merged, tokenizer, staged, result.folder)
            found: tuple[PreTrainedModel, Tokenizer] | str = _read_merged(
                replace(result, folder=staged)
            )
        else:
            file = staged / f"{_name(plan)}-{quantization}.gguf"
            exact = write_gguf(
                merged,
                tokenizer,
                file,
                quantization=quantization,
                name=_name(plan),
                end_token_id=_end_ids(merged, tokenizer)[0],
            )
            if kind == "ollama":
                text, notes = modelfile(file.name, tokenizer, merged)
                (staged / "Modelfile").write_text(text, encoding="utf-8")
            notes += rounding_note(quantization, exact)
            merged.generation_config.save_pretrained(staged)
            found = _read_gguf(file)
        comparison = _compared(merged, wanted, found, tokenizer, prompts)
        write_json(staged / "comparison.json", _record(comparison))
        text = card(run_folder, plan, kind, quantization, comparison.sentence)
        (staged / "README.md").write_text(text, encoding="utf-8")
    observer.activity_done()
    return ExportedResult(folder, comparison, notes)


def rounding_note(quantization: Quantization, exact: frozenset[Quantization]) -> tuple[str, ...]:
    """Which format would hold the weights as they are, where the one that was taken does not."""
    if quantization == "f32" or quantization in exact:
        return ()
    better = next(iter(sorted(exact)), "f32")
    return (
        f"{quantization.upper()} rounds some weights; --quantization {better} holds all of them "
        f"exactly{', in twice the bytes of F16' if better == 'f32' else ''}.",
    )


def _record(comparison: Comparison) -> dict[str, Any]:
    return {
        "num_prompts": comparison.num_prompts,
        "num_new_tokens": comparison.num_new_tokens,
        "max_logit_difference": comparison.max_logit_difference,
        "num_same_answers": comparison.num_same_answers,
        "parting_gaps": list(comparison.parting_gaps),
        "not_compared": comparison.not_compared,
    }


def _name(plan: Plan) -> str:
    """A file name of safe characters, after the model's."""
    base = Path(str(plan.decision("model").value)).name.removesuffix(".gguf") or "model"
    return "".join(one if one.isalnum() or one in "._-" else "-" for one in base)


def _result(result: ModelSource, plan: Plan) -> tuple[Tokenizer, Model]:
    settings = plan.settings()
    tokenizer = load_tokenizer(result)
    if settings.method == "full":
        whole = load_model(result, dtype=torch.float32, device=_CPU, packed_attention=False)
        return tokenizer, whole
    source = locate(
        plan.paths.get("model", settings.model), trust_remote_code=settings.trust_remote_code
    )
    base = load_model(source, dtype=torch.float32, device=_CPU, packed_attention=False)
    return tokenizer, load_adapter(base, result.folder)


def _merged(model: Model) -> PreTrainedModel:
    if not isinstance(model, PeftModel):
        return model
    merged: PreTrainedModel = model.merge_and_unload()
    return merged


def _prompts(tokenizer: Tokenizer) -> list[list[int]]:
    """The prompts as a user's turn where there is a chat template, else as they stand."""
    if tokenizer.chat_template is None:
        return [list(tokenizer(text).input_ids) for text in PROMPTS]
    rendered = [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
        )
        for text in PROMPTS
    ]
    return [list(tokenizer(text, add_special_tokens=False).input_ids) for text in rendered]


@dataclass(frozen=True, slots=True)
class _Answers:
    """Logits over each prompt's tokens, and the greedy tokens after it."""

    logits: list[torch.Tensor]
    tokens: list[list[int]]


def _end_ids(model: PreTrainedModel, tokenizer: Tokenizer) -> list[int]:
    ends = model.generation_config.eos_token_id
    own = tokenizer.eos_token_id
    if ends is None:
        return [own]
    return ends if isinstance(ends, list) else [ends]


@torch.no_grad()
def _answers(model: Model, tokenizer: Tokenizer, prompts: Sequence[list[int]]) -> _Answers:
    logits = [model(torch.tensor([ids])).logits[0] for ids in prompts]
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    tokens = generate_greedy(
        model, prompts, max_new_tokens=NUM_NEW_TOKENS, eos_token_ids=ends, pad_token_id=0
    )
    return _Answers(logits, tokens)


def _compared(
    model: PreTrainedModel,
    wanted: _Answers,
    found: tuple[PreTrainedModel, Tokenizer] | str,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
) -> Comparison:
    if isinstance(found, str):
        return Comparison(len(prompts), NUM_NEW_TOKENS, None, None, not_compared=found)
    other_model, other_tokenizer = found
    again = _prompts(other_tokenizer)
    got = _answers(other_model, tokenizer, prompts)
    difference = max(
        float((one - other).abs().max())
        for one, other in zip(wanted.logits, got.logits, strict=True)
    )
    same = sum(
        one == other and ids == its
        for one, other, ids, its in zip(wanted.tokens, got.tokens, prompts, again, strict=True)
    )
    gaps = tuple(
        _gap(model, [*ids, *one[: _first_difference(one, other)]])
        for one, other, ids in zip(wanted.tokens, got.tokens, prompts, strict=True)
        if one != other
    )
    return Comparison(len(prompts), NUM_NEW_TOKENS, difference, same, gaps)


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """Where the two part; the shorter one's end where it begins the longer."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


@torch.no_grad()
def _gap(model: PreTrainedModel, ids: Sequence[int]) -> float:
    """Between the two best logits of the token after these."""
    best, second = model(torch.tensor([list(ids)])).logits[0, -1].topk(2).values
    return float(best - second)


def _read_merged(source: ModelSource) -> tuple[PreTrainedModel, Tokenizer]:
    model = load_model(source, dtype=torch.float32, device=_CPU, packed_attention=False)
    return model, load_tokenizer(source)


def _read_gguf(file: Path) -> tuple[PreTrainedModel, Tokenizer] | str:
    """By transformers; why not, where its reader cannot."""
    try:
        return load_gguf(file)
    except Exception as error:  # the reader has no errors of its own
        return f"transformers does not read the file: {type(error).__name__}"
