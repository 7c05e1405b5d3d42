"""What a study compares: values of one hyperparameter, over seeds that all arms share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import ResolvedConfig, resolve
from trimtab.hyperparameters.problems import shown

DEFAULT_SEEDS = 3
DEFAULT_EQUIVALENCE_MARGIN = 0.005
MAX_SEEDS = 100
NOT_OF_THE_UPDATES = frozenset(
    {
        "output_dir",
        "memory_limit",
        "eval_strategy",
        "eval_steps",
        "save_steps",
        "save_total_limit",
        "logging_steps",
        "report_to",
        "report_samples",
        "max_new_tokens",
    }
)
"""Settings that a trial's losses, time and memory do not depend on."""

_SCORED = "it changes which tokens are scored, so that the losses could not be compared"
_NOT_OF_AN_UPDATE = "no weight update depends on it"
_SEEDS = "the seeds are what the arms share: say how many with --seeds"
_PACKED = "packed rows put more tokens into an update, and the arms are held to the same ones"
_SHARED = "all arms run on one device"
NOT_STUDIED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        (
            "model",
            "trust_remote_code",
            "chat_template",
            "dataset",
            "dataset_split",
            "dataset_format",
            "dataset_columns",
            "dataset_text_field",
            "eval_dataset",
            "completion_only_loss",
            "assistant_only_loss",
            "on_bad_row",
        ),
        _SCORED,
    )
    | dict.fromkeys(("seed", "data_seed"), _SEEDS)
    | {"packing": _PACKED, "device": _SHARED}
    | dict.fromkeys(
        (*NOT_OF_THE_UPDATES, "on_loss_spike", "pad_token", "per_device_eval_batch_size"),
        _NOT_OF_AN_UPDATE,
    )
)
"""Hyperparameters that no study can be about, with the reason as a clause."""

MOVES_BEST_RATE = frozenset(
    {
        "method",
        "global_batch_size",
        "optim",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_grad_norm",
        "lora_r",
        "lora_alpha",
        "target_modules",
        "lr_scheduler_type",
        "lr_scheduler_kwargs",
        "num_train_epochs",
        "max_steps",
    }
)
"""Hyperparameters that the best learning rate may depend on."""

_ONLY_LORA = frozenset({"lora_r", "lora_alpha", "lora_dropout", "target_modules"})
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) *%")


@dataclass(frozen=True, slots=True)
class Arms:
    """The values of hyperparameter `name`, at least two and all different; the first is the
    reference."""

    name: str
    values: tuple[Any, ...]

    @property
    def rate_may_move(self) -> bool:
        """May each arm have a best learning rate of its own?"""
        return self.name in MOVES_BEST_RATE


def is_arms_argument(word: str) -> bool:
    """Is the word of a command line `NAME=V1,V2`, and no file's name?"""
    name, equals, _ = word.partition("=")
    return bool(equals) and name.replace("-", "_").isidentifier()


def read_arms(argument: str) -> Arms:
    """`learning_rate=1e-4,3e-4` as arms. Raises ConfigError."""
    name, equals, text = argument.partition("=")
    if not equals or not text:
        raise ConfigError(
            f"{argument!r} names no values to compare.",
            hint="Write a hyperparameter with two values or more: learning_rate=1e-4,3e-4.",
        )
    words = [word.strip() for word in _split(text)]
    if "" in words:
        raise ConfigError("one of the values is empty.", where=argument)
    return _arms(name, [_read(argument, name, option=word) for word in words], argument)


def arms_of(name: str, values: Sequence[Any]) -> Arms:
    """The arms of a study from Python. Raises ConfigError."""
    return _arms(name, [_read(name, name, value=value) for value in values], name)


def check_method(arms: Arms, config: ResolvedConfig) -> None:
    """Raises ConfigError where the configuration makes no use of what is compared, or makes the
    arms train on different amounts by it."""
    if arms.name in _ONLY_LORA and config.config.method != "lora":
        raise ConfigError(
            f"{arms.name} is of adapters, and method is {config.config.method}.",
            hint="Compare it with --method lora.",
        )
    if arms.name == "max_length" and config.config.packing:
        raise ConfigError(
            "max_length cannot be studied with packing: an update of longer packed rows takes more "
            "tokens, and the arms are held to the same ones.",
            hint="Leave packing out.",
        )
    if arms.name == "num_train_epochs" and config.config.max_steps != -1:
        raise ConfigError(
            f"num_train_epochs is compared, and max_steps {config.config.max_steps:,} would decide "
            "the length of every run.",
            hint="Leave max_steps out.",
        )


def read_margin(text: str) -> float:
    """`0.5%` or `0.005` as a share. Raises ConfigError."""
    found = _PERCENT.fullmatch(text.strip())
    try:
        share = float(found[1]) / 100 if found else float(text)
    except ValueError:
        share = -1.0
    return check_margin(share, text)


def check_margin(share: float, text: object = None) -> float:
    """The share as it is. Raises ConfigError where it is not above 0 and below 1."""
    if not 0 < share < 1:
        raise ConfigError(
            f"the equivalence margin is {shown(share if text is None else text)}; it takes a share "
            "of the loss above 0 and below 1, such as 0.5%.",
            hint="Differences that small count as none; without any, rounding would be a finding.",
        )
    return share


def check_seeds(num_seeds: int) -> int:
    """The number as it is. Raises ConfigError where it is not from 1 to 100."""
    if not 1 <= num_seeds <= MAX_SEEDS:
        raise ConfigError(f"seeds is {num_seeds}; it takes a whole number from 1 to {MAX_SEEDS}.")
    return num_seeds


def _read(
    where: str, name: str, *, option: str | None = None, value: Any = None
) -> tuple[str, Any]:
    """The catalogue's name and the value as the catalogue takes it."""
    # What a configuration requires does not bear on another value's domain.
    required = {"model": "-", "dataset": "-"}
    spelled = name.replace("-", "_")
    try:
        if option is None:
            given = resolve(values={**required, spelled: value})
        else:
            given = resolve(values=required, options=[(spelled, option)])
    except ConfigError as error:
        raise ConfigError(error.what, where=where, hint=error.hint) from error
    layer = "python" if option is None else "command line"
    names = [
        each
        for each, origin in given.origins.items()
        if origin.layer == layer and (option is not None or each not in required)
    ]
    (canonical,) = names or [spelled]
    return canonical, dict(given.config)[canonical]


def _arms(written: str, read: Sequence[tuple[str, Any]], where: str) -> Arms:
    if not read:
        raise ConfigError(f"{written} has no value, and a study compares.", where=where)
    names = {name for name, _ in read}
    (name,) = names
    if name in NOT_STUDIED:
        raise ConfigError(f"{written} cannot be studied: {NOT_STUDIED[name]}.", where=where)
    values = tuple(value for _, value in read)
    if len(values) < 2:
        raise ConfigError(
            f"{written} has one value, and a study compares.",
            where=where,
            hint="The first value is the reference; put another behind a comma.",
        )
    for position, value in enumerate(values):
        if any(_same(value, earlier) for earlier in values[:position]):
            raise ConfigError(f"{name} is {shown(value)} twice.", where=where, hint="Keep one.")
    return Arms(name, values)


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _split(text: str) -> Iterator[str]:
    """The parts between commas that stand in no bracket."""
    depth, start = 0, 0
    for position, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            yield text[start:position]
            start = position + 1
    yield text[start:]
