"""What other tools call by another name *and* another value, said in the catalogue's words.

Aliases with the same meaning and unit stand in the declarations. Here stand the rest: switches
that became choices, spellings of a choice, and names of things that are not there, each with
what to do instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

Schema = Mapping[str, Any]
Values = Mapping[str, Any]

_BOOLEAN: Final[Schema] = {"type": "boolean"}
_TRUE_FALSE: Final = ("true", "false")


class TranslationError(Exception):
    """The value has no counterpart; the text is a sentence's end and may say what to do."""


@dataclass(frozen=True, slots=True)
class ForeignName:
    """A name of another tool's. `translate` gives values by the catalogue's names, maybe none.

    means: the translation in words. schema: what `translate` takes, as JSON Schema.
    target: the hyperparameter to read about, None where there is none.
    switch_words: what may follow the option, which may stand alone (empty: it may not).
    """

    name: str
    target: str | None
    means: str
    schema: Schema
    translate: Callable[[Any], Values]
    switch_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spelling:
    """Another tool's values for a field of the catalogue; `respell` passes on the rest.

    means: the translation in words. schema: the values that it adds, as JSON Schema.
    switch_words: as in `ForeignName`.
    """

    name: str
    means: str
    schema: Schema
    respell: Callable[[Any], Any]
    switch_words: tuple[str, ...] = ()


def _switch(name: str, when_true: Values, when_false: Values, *, means: str) -> ForeignName:
    def translate(value: Any) -> Values:
        if not isinstance(value, bool):
            raise TranslationError("it takes true or false.")
        return when_true if value else when_false

    target = next(iter({**when_true, **when_false}), None)
    return ForeignName(name, target, means, _BOOLEAN, translate, _TRUE_FALSE)


def _absent(name: str, *, allowed: tuple[Any, ...], instead: str) -> ForeignName:
    """A feature that is not there: only the values that ask for nothing are taken."""

    def translate(value: Any) -> Values:
        if any(type(value) is type(one) and value == one for one in allowed):
            return {}
        raise TranslationError(instead)

    means = f"taken only where it asks for nothing, since {instead.removesuffix('.')}"
    switch_words = _TRUE_FALSE if any(isinstance(one, bool) for one in allowed) else ()
    return ForeignName(name, None, means, {"enum": list(allowed)}, translate, switch_words)


def _half_precision(name: str) -> ForeignName:
    def translate(value: Any) -> Values:
        if value is None:
            return {}
        if isinstance(value, str) and value == "auto":
            return {"precision": "auto"}
        if not isinstance(value, bool):
            raise TranslationError("it takes true, false or auto.")
        return {"precision": name if value else "fp32"}

    means = f"true is {name}; false, without the other one being true, is fp32"
    schema = {"enum": [True, False, "auto", None]}
    return ForeignName(name, "precision", means, schema, translate, (*_TRUE_FALSE, "auto"))


_BEST: Final = "the weights with the lowest held-out loss are handed over: remove this line."
_ABSENT: Final[Mapping[str, tuple[tuple[Any, ...], str]]] = {
    "load_in_4bit": (
        (False, None),
        "training on 4-bit weights (qlora) is not there yet: use method lora or full.",
    ),
    "load_in_8bit": (
        (False, None),
        "training on 8-bit weights is not there yet: use method lora or full.",
    ),
    "packing_strategy": (
        ("bfd",),
        "packing is best-fit decreasing, `bfd`: remove this line.",
    ),
    "save_strategy": (
        ("steps",),
        "checkpoints are taken every save_steps updates, or a share of the run.",
    ),
    "logging_strategy": (
        ("steps",),
        "every update is logged in metrics.jsonl: remove this line.",
    ),
    "logging_dir": ((None,), "logs lie in the run folder, output_dir: remove this line."),
    "resume_from_checkpoint": (
        (False, None),
        "a run is resumed by `trimtab resume RUN`: remove this line.",
    ),
    "push_to_hub": (
        (False, None),
        "a run uploads nothing: remove this line, and send its result afterwards with "
        "`trimtab export RUN --push-to-hub USER/NAME`.",
    ),
    "deepspeed": (
        (None,),
        "several devices train by --num-processes, torchrun and parallelism: remove this line.",
    ),
    "load_best_model_at_end": ((True,), _BEST),
    "metric_for_best_model": (("eval_loss", "loss"), _BEST),
    "early_stopping_patience": ((None,), f"no run ends early, and {_BEST}"),
    "dataloader_num_workers": (
        (0,),
        "rows are tokenised before the run, or in windows as it goes: remove this line.",
    ),
    "remove_unused_columns": (
        (True,),
        "columns that nothing names are not read: remove it.",
    ),
    "neftune_noise_alpha": ((None,), "noise on embeddings is not there: remove this line."),
}
"""Names of features that are not there: the values that ask for nothing, and what is instead."""


def _foreign() -> Mapping[str, ForeignName]:
    both_off = {"completion_only_loss": True, "assistant_only_loss": True}
    both_on = {"completion_only_loss": False, "assistant_only_loss": False}
    names = (
        _half_precision("bf16"),
        _half_precision("fp16"),
        _switch(
            "padding_free",
            {"padding": "none"},
            {"padding": "longest"},
            means="true is none, false is longest",
        ),
        _switch(
            "train_on_inputs",
            both_on,
            both_off,
            means="the inverse of completion_only_loss and of assistant_only_loss",
        ),
        _switch("use_cpu", {"device": "cpu"}, {}, means="true is cpu, false changes nothing"),
        _switch(
            "lora_target_linear",
            {"target_modules": "all-linear"},
            {},
            means="true is all-linear, false changes nothing",
        ),
        *(
            _absent(name, allowed=allowed, instead=instead)
            for name, (allowed, instead) in _ABSENT.items()
        ),
    )
    return MappingProxyType({foreign.name: foreign for foreign in names})


FOREIGN: Final = _foreign()
"""Names that are no alias of one hyperparameter, by name."""


def foreign_names() -> dict[str, str]:
    """The hyperparameter to name where a foreign name was misspelt: itself where there is none."""
    return {name: foreign.target or name for name, foreign in FOREIGN.items()}


_OPTIMIZERS: Final = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw_bnb_8bit": "adamw_8bit",
    "lion_32bit": "lion",
    "schedule_free_adamw": "adamw_schedule_free",
}


def _respell_optimizer(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("paged_"):
        raise TranslationError(
            "paged optimizers are not there: adamw_8bit also saves state memory."
        )
    return _OPTIMIZERS.get(value, value) if isinstance(value, str) else value


def _respell_method(value: Any) -> Any:
    if isinstance(value, str) and value == "qlora":
        raise TranslationError("training on 4-bit weights is not there yet: use lora or full.")
    return value


def _respell_checkpointing(value: Any) -> Any:
    if isinstance(value, bool):
        return "full" if value else "off"
    return value


_MODULE_NAMES: Final = r"^[A-Za-z0-9_.]+( *, *[A-Za-z0-9_.]+)*$"


_ALL_LINEAR: Final = ("all-linear", "all", "all_linear")


def _respell_modules(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1 and value[0] in _ALL_LINEAR:
        return "all-linear"
    if not isinstance(value, str):
        return value
    if value in _ALL_LINEAR:
        return "all-linear"
    if re.match(_MODULE_NAMES, value):
        return [name.strip() for name in value.split(",")]
    return value


def _respell_held_out(value: Any) -> Any:
    if isinstance(value, int | float) and value == 0:
        return "none"
    return value


def _respell_eval_strategy(value: Any) -> Any:
    return "no" if value is False else value


def _respell_tracker(value: Any) -> Any:
    if value is None or value == []:
        return "none"
    return value[0] if isinstance(value, list) and len(value) == 1 else value


SPELLINGS: Final[Mapping[str, Spelling]] = MappingProxyType(
    {
        spelling.name: spelling
        for spelling in (
            Spelling(
                "optim",
                "; ".join(f"{theirs} is {ours}" for theirs, ours in _OPTIMIZERS.items()),
                {"enum": list(_OPTIMIZERS)},
                _respell_optimizer,
            ),
            Spelling("method", "qlora is refused until it exists", {"enum": []}, _respell_method),
            Spelling(
                "activation_checkpointing",
                "true is full, false is off",
                _BOOLEAN,
                _respell_checkpointing,
                switch_words=(*_TRUE_FALSE, "off", "full", "auto"),
            ),
            Spelling(
                "target_modules",
                "all is all-linear, also as a list of one; one text is a list with commas",
                {
                    "anyOf": [
                        {"type": "string", "pattern": _MODULE_NAMES},
                        {
                            "type": "array",
                            "items": {"enum": list(_ALL_LINEAR)},
                            "minItems": 1,
                            "maxItems": 1,
                        },
                    ]
                },
                _respell_modules,
            ),
            Spelling("eval_dataset", "0 is none", {"enum": [0, False]}, _respell_held_out),
            Spelling(
                "report_to",
                "null is none; a list of one is that one",
                {"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 1}]},
                _respell_tracker,
            ),
            Spelling("eval_strategy", "false is no", {"enum": [False]}, _respell_eval_strategy),
        )
    }
)
"""Values of other tools for a field of the catalogue, by that field's name."""
