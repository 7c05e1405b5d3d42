"""A file of another tool's, found out and read as a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import aliases, catalogue
from trimtab.hyperparameters.layers import ResolvedConfig, resolve
from trimtab.hyperparameters.problems import Problem, raise_for
from trimtab.hyperparameters.reading import Setting, read_file
from trimtab.interop.dialects.axolotl import AXOLOTL
from trimtab.interop.dialects.hugging_face import TRANSFORMERS
from trimtab.interop.dialects.llama_factory import LLAMA_FACTORY
from trimtab.interop.dialects.llama_factory_v1 import LLAMA_FACTORY_V1
from trimtab.interop.dialects.trl import TRL
from trimtab.interop.translating import Dialect, Difference, NotCarried, Reading, translate

OURS: Final = "trimtab"
DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect
    for dialect in (AXOLOTL, LLAMA_FACTORY, LLAMA_FACTORY_V1, TRL, TRANSFORMERS)
}
_UNITS: Final = (
    ("per_device_train_batch_size", "gradient_accumulation_steps", "global_batch_size"),
    ("lora_r", "lora_alpha"),
)
"""Hyperparameters that mean something together only: where a file sets one, the tool's own default
stands for the others."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A hyperparameter that the file does not set, and what its tool would take."""

    name: str
    theirs: Any


@dataclass(frozen=True, slots=True)
class Imported:
    """A configuration from another tool's file.

    renamed: their keys by the hyperparameters that they became. left_out: what the file leaves to
    its tool's defaults, and is decided by the plan here. differences: what the tool would do
    otherwise under the values that were carried.
    """

    resolved: ResolvedConfig
    dialect: Dialect
    num_carried: int
    not_carried: tuple[NotCarried, ...]
    renamed: Mapping[str, tuple[str, ...]]
    left_out: tuple[LeftOut, ...]
    differences: tuple[Difference, ...]


def dialect_of(file: Path) -> Dialect | None:
    """The tool that the file was written for, by its keys; None where it is one of ours.

    Raises ConfigError where the file cannot be read, or has the marks of several tools.
    """
    return _dialect_by_keys([setting.name for setting in read_file(file)], file)


def import_config(
    file: Path,
    *,
    dialect: str | None = None,
    options: Sequence[tuple[str, str]] = (),
    allow_lossy: bool = False,
    their_defaults: bool = False,
) -> Imported | None:
    """The file translated, with options on top; None where it is a configuration of trimtab's.

    `dialect` names the tool (`trimtab` for none) where its keys should not decide. What the tool
    takes for a key that is left out is taken here where the hyperparameter has no `auto`, and with
    `their_defaults` in any case. Raises ConfigError for an unknown dialect, a file that cannot be
    read, and for keys that cannot be carried though the trained model depends on them, unless
    `allow_lossy` or an option that settles the matter.
    """
    found = _named(dialect) if dialect is not None else dialect_of(file)
    if found is None:
        return None
    overrides = {aliases().get(name, name): text for name, text in options}
    reading = translate(read_file(file), found, overrides)
    if not allow_lossy:
        _refuse_losses(reading)
    theirs = _defaults_of_what_is_left_out(reading, found)
    defaults = _defaults_taken(reading, theirs, found.title, their_defaults)
    settings = [*reading.values.values(), *defaults]
    resolved = resolve(settings=settings, options=options)
    return Imported(
        resolved=resolved,
        dialect=found,
        num_carried=len(reading.values),
        not_carried=tuple(reading.not_carried),
        renamed={name: tuple(targets) for name, targets in reading.renamed.items()},
        left_out=tuple(
            LeftOut(name, value)
            for name, value in theirs.items()
            if not resolved.is_set(name) and _matters(name, resolved)
        ),
        differences=tuple(
            difference
            for difference in reading.differences
            if difference.applies(resolved.config) and not overrides.keys() & set(difference.about)
        ),
    )


def _named(name: str) -> Dialect | None:
    if name == OURS:
        return None
    if name not in DIALECTS:
        raise ConfigError(
            f"--from is {name!r}: no such dialect is known.",
            hint=f"Known are {', '.join([*DIALECTS, OURS])}.",
        )
    return DIALECTS[name]


def _dialect_by_keys(names: Sequence[str], file: Path) -> Dialect | None:
    marked = [dialect for dialect in DIALECTS.values() if dialect.markers & set(names)]
    if "model" in names and LLAMA_FACTORY_V1 not in marked:
        return None
    for one, others in _CONTAINED.items():
        if one in marked and set(others) & set(marked):
            marked.remove(one)
    if len(marked) > 1:
        raise ConfigError(
            f"the keys are those of {' and of '.join(one.title for one in marked)}.",
            where=str(file),
            hint=f"Say which: --from {marked[0].name}",
        )
    return marked[0] if marked else None


_CONTAINED: Final = {
    TRANSFORMERS: (TRL, LLAMA_FACTORY, LLAMA_FACTORY_V1, AXOLOTL),
    TRL: (LLAMA_FACTORY,),
    LLAMA_FACTORY: (LLAMA_FACTORY_V1,),
}
"""Dialects whose keys are among those of others."""


def _refuse_losses(reading: Reading) -> None:
    problems = [
        Problem(f"{lost.name} is {lost.shown_value} and cannot be carried: {lost.why}.", lost.where)
        for lost in reading.not_carried
        if lost.changes_result and not (lost.about and set(lost.about) <= reading.overrides.keys())
    ]
    if problems:
        way_out = "Remove it, or take the loss with --allow-lossy."
        if len(problems) > 1:
            way_out = "Remove them, or take the loss with --allow-lossy."
        problems[-1] = Problem(problems[-1].what, problems[-1].where, way_out)
    raise_for(problems)


def _defaults_of_what_is_left_out(reading: Reading, dialect: Dialect) -> dict[str, Any]:
    """The tool's defaults, without those that a lost key or a wish to evaluate speaks against."""
    lost = {
        name for one in reading.not_carried if one.changes_result for name in (one.name, *one.about)
    }
    strategy = reading.values.get("eval_strategy")
    evaluates = strategy is not None and strategy.value != "no"
    if evaluates or "eval_strategy" in lost | reading.overrides.keys():
        lost.add("eval_dataset")
    return {
        name: value
        for name, value in dialect.defaults.items()
        if name not in lost or not catalogue()[name].has_auto
    }


def _defaults_taken(
    reading: Reading, theirs: Mapping[str, Any], title: str, all_of_them: bool
) -> list[Setting]:
    """The tool's defaults for keys that are left out, where they are taken here."""
    given = reading.values.keys()
    brought = {name for unit in _UNITS if given & set(unit) for name in unit if name not in given}
    if "global_batch_size" in given:
        brought -= set(_UNITS[0])
    rivals = {"num_train_epochs"} if "max_steps" in given else set()
    rivals |= set(_UNITS[0]) if "global_batch_size" in reading.overrides else set()
    rivals |= {"warmup_steps"} if "warmup_ratio" in given else set()
    return [
        Setting(name, value, f"{title}'s defaults")
        for name, value in theirs.items()
        if name not in given
        and name not in rivals
        and (all_of_them or name in brought or not catalogue()[name].has_auto)
    ]


def _matters(name: str, resolved: ResolvedConfig) -> bool:
    """LoRA's values count under adapters alone, epochs and warmup where no rival is set."""
    if name.startswith("lora_"):
        return resolved.config.method == "lora"
    if name == "num_train_epochs":
        return not resolved.is_set("max_steps")
    return name != "warmup_steps" or not resolved.is_set("warmup_ratio")
