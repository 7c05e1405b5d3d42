"""From layers of settings to one configuration that knows where each value was set.

Layers, from the first to the one that wins: defaults, file, Python, command line. Paths are taken
from the current folder, whichever layer gives them, as Hugging Face's tools do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from trimtab.hyperparameters.catalogue import aliases, catalogue
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.hyperparameters.declaration import AUTO
from trimtab.hyperparameters.options import option_setting, parse_options, split_options
from trimtab.hyperparameters.problems import (
    Problem,
    out_of_domain,
    raise_for,
    shown,
    unknown_name,
)
from trimtab.hyperparameters.reading import Setting, read_file
from trimtab.hyperparameters.translations import FOREIGN, SPELLINGS, TranslationError
from trimtab.hyperparameters.writing import yaml_value

__all__ = [
    "Layer",
    "Origin",
    "Overruled",
    "ResolvedConfig",
    "parse_options",
    "resolve",
    "split_options",
]

Layer = Literal["default", "file", "python", "command line"]

_WHERE = {"file": "in the file", "python": "in Python", "command line": "on the command line"}


@dataclass(frozen=True, slots=True)
class Origin:
    """The layer that set a value; `where` is `config.yaml:12` or `--learning-rate`."""

    layer: Layer
    where: str | None = None

    def __str__(self) -> str:
        return self.layer if self.where is None else f"{self.layer}, {self.where}"


@dataclass(frozen=True, slots=True)
class Overruled:
    """A value that was set and lost: to a later layer, or to the named rival field `by`.

    `by` is the field's own name where a later layer set the same field.
    """

    name: str
    value: Any
    origin: Origin
    by: str
    because: str


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """The configuration after all layers, with the origin of every field.

    An overruled rival (`max_steps` under `num_train_epochs`, `warmup_ratio` under a later
    `warmup_steps`) is back at its unset value in `config` and listed in `overruled`.
    """

    config: TrainingConfig
    origins: Mapping[str, Origin]
    overruled: tuple[Overruled, ...] = ()

    def is_set(self, name: str) -> bool:
        """Did the user set this field?"""
        return self.origins[name].layer != "default"

    def is_given(self, name: str) -> bool:
        """Did the user set this field to a value, rather than leave it out or write `auto`?"""
        return self.is_set(name) and dict(self.config)[name] != AUTO

    def to_yaml(self) -> str:
        """What the user set, under the catalogue's names, each with its layer as a comment.

        `resolve(file=…)` of this text gives the same configuration.
        """
        values = dict(self.config)
        lines = [
            f"{name}: {yaml_value(values[name])}  # {_comment(str(origin))}"
            for name, origin in self.origins.items()
            if self.is_set(name)
        ]
        lines += [
            f"# overruled: {_comment(f'{lost.name}: {yaml_value(lost.value)}')}"
            f"  # {_comment(f'{lost.origin}; {lost.because}')}"
            for lost in self.overruled
        ]
        return "".join(f"{line}\n" for line in lines)


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def resolve(
    *,
    file: Path | None = None,
    settings: Sequence[Setting] = (),
    values: Mapping[str, Any] | None = None,
    options: Sequence[tuple[str, str]] = (),
) -> ResolvedConfig:
    """One configuration from a YAML file, Python values and the command line's options.

    `settings` stand in for a file that was read already. Names may be aliases in every layer.
    Raises ConfigError with a line for each problem: an unknown name, a value out of its domain,
    one thing set twice in a layer, a missing `model` or `dataset`.
    """
    problems: list[Problem] = []
    stack = _Stack()
    if file is not None:
        settings = read_file(file)
    if settings:
        stack.add("file", _read_layer(settings, problems), problems)
    if values is not None:
        stack.add("python", _read_layer(_python_settings(values), problems), problems)
    if options:
        given = [option_setting(name, text) for name, text in options]
        # As on any command line, the last of several equal options counts.
        last = {setting.name: setting for setting in given}
        stack.add("command line", _read_layer(list(last.values()), problems), problems)
    problems += _missing(stack, problems, file)
    raise_for(problems)
    return stack.resolved()


@dataclass(frozen=True, slots=True)
class _Given:
    """A value under the catalogue's name, with the setting that it came from."""

    name: str
    value: Any
    setting: Setting


@dataclass
class _Stack:
    """The values that stand so far, layer upon layer."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    overruled: list[Overruled] = field(default_factory=list)

    def add(self, layer: Layer, given: Mapping[str, _Given], problems: list[Problem]) -> None:
        origins = {name: Origin(layer, one.setting.where) for name, one in given.items()}
        values = {name: one.value for name, one in given.items()}
        self._settle_rivals(values, origins, problems)
        for name, value in values.items():
            if name in self.values and self.values[name] != value:
                self._overrule(name, by=name, because=f"set again {_WHERE[layer]}")
            self.values[name], self.origins[name] = value, origins[name]

    def _settle_rivals(
        self, values: dict[str, Any], origins: Mapping[str, Origin], problems: list[Problem]
    ) -> None:
        """Epochs against steps, warmup as a number against a ratio; `values` may lose one."""
        if _says("num_train_epochs", values) and _says("max_steps", values):
            lost = values.pop("max_steps")
            because = "epochs win where one layer sets both"
            origin = origins["max_steps"]
            self.overruled.append(Overruled("max_steps", lost, origin, "num_train_epochs", because))
        if _says("warmup_steps", values) and _says("warmup_ratio", values):
            places = [origins[name].where for name in ("warmup_steps", "warmup_ratio")]
            second = "" if places[1] is None else f" ({places[1]})"
            problems.append(
                Problem(
                    f"warmup_steps and warmup_ratio{second} are both set.",
                    where=places[0],
                    hint="Keep one; warmup_steps takes a share of the run too, as 0.03.",
                )
            )
        for one, other in _RIVALS:
            if _says(one, values) and not _says(other, values):
                self._drop(other, one, origins)

    def _drop(self, name: str, by: str, origins: Mapping[str, Origin]) -> None:
        """Unset what an earlier layer said, since a rival is set now."""
        if _says(name, self.values):
            self._overrule(name, by=by, because=f"{by} is set {_WHERE[origins[by].layer]}")
            del self.values[name], self.origins[name]

    def _overrule(self, name: str, *, by: str, because: str) -> None:
        lost = Overruled(name, self.values[name], self.origins[name], by, because)
        self.overruled.append(lost)

    def resolved(self) -> ResolvedConfig:
        origins = {name: self.origins.get(name, Origin("default")) for name in catalogue()}
        config = TrainingConfig.model_validate(self.values)
        return ResolvedConfig(config, origins, tuple(self.overruled))


_RIVALS = (
    ("num_train_epochs", "max_steps"),
    ("max_steps", "num_train_epochs"),
    ("warmup_steps", "warmup_ratio"),
    ("warmup_ratio", "warmup_steps"),
)
_UNSET = {"num_train_epochs": "auto", "max_steps": -1, "warmup_steps": "auto", "warmup_ratio": None}


def _says(name: str, values: Mapping[str, Any]) -> bool:
    """Is a length or warmup really asked for: there, and not its unset value?"""
    return name in values and values[name] != _UNSET[name]


def _python_settings(values: Mapping[str, Any]) -> list[Setting]:
    return [
        Setting(str(name), os.fspath(value) if isinstance(value, os.PathLike) else value)
        for name, value in values.items()
    ]


def _read_layer(settings: Sequence[Setting], problems: list[Problem]) -> dict[str, _Given]:
    """A layer's values, validated, by the catalogue's names; what is wrong goes to `problems`."""
    found: list[Problem] = []
    given = _validated(_given(settings, found), found)
    order = {setting.where: position for position, setting in enumerate(settings)}
    problems += sorted(found, key=lambda problem: order[problem.where])
    return given


def _given(settings: Sequence[Setting], problems: list[Problem]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for setting in _without_half_precision_twins(settings, problems):
        try:
            translated = _translated(setting)
        except TranslationError as error:
            what = f"{setting.name} is {shown(setting.value)}; {error}"
            problems.append(Problem(what, where=setting.where))
            continue
        if translated is None:
            problems.append(unknown_name(setting))
            continue
        for name, value in translated.items():
            if name in given:
                problems.append(_set_twice(name, given[name].setting, setting))
            else:
                given[name] = _Given(name, value, setting)
    return given


def _translated(setting: Setting) -> Mapping[str, Any] | None:
    """Values by the catalogue's names; None where the name is unknown."""
    if setting.name in FOREIGN:
        return FOREIGN[setting.name].translate(setting.value)
    name = aliases().get(setting.name, setting.name)
    if name not in catalogue():
        return None
    if name in SPELLINGS:
        return {name: SPELLINGS[name].respell(setting.value)}
    return {name: setting.value}


def _without_half_precision_twins(
    settings: Sequence[Setting], problems: list[Problem]
) -> list[Setting]:
    """`bf16` and `fp16` are one choice written as two switches: keep the one that decides."""
    twins = [one for one in settings if one.name in ("bf16", "fp16")]
    if len(twins) < 2:
        return list(settings)
    on = [one for one in twins if one.value is not False and one.value is not None]
    if len(on) == 2:
        problems.append(_set_twice("precision", *twins))
    decides = (on or [one for one in twins if one.value is False] or twins)[0]
    return [one for one in settings if one.name not in ("bf16", "fp16") or one is decides]


def _set_twice(name: str, first: Setting, second: Setting) -> Problem:
    place = "" if first.where is None or first.where.startswith("--") else f" ({first.where})"
    return Problem(
        f"{second.name} and {first.name}{place} both set {name}.",
        where=second.where,
        hint="Keep one of the two.",
    )


def _validated(given: Mapping[str, _Given], problems: list[Problem]) -> dict[str, _Given]:
    """The values as the fields take them; those that they refuse go to `problems`."""
    required = {name: "-" for name, entry in catalogue().items() if entry.required}
    taken = dict(given)
    while True:
        try:
            config = TrainingConfig.model_validate(
                {**required, **{name: one.value for name, one in taken.items()}}
            )
        except ValidationError as error:
            for name in dict.fromkeys(str(detail["loc"][0]) for detail in error.errors()):
                refused = taken.pop(name)
                entry = catalogue()[name]
                problems.append(out_of_domain(refused.setting, entry, refused.value))
        else:
            values = dict(config)
            return {name: _Given(name, values[name], one.setting) for name, one in taken.items()}


def _missing(stack: _Stack, problems: Sequence[Problem], file: Path | None) -> list[Problem]:
    """Required names that no layer sets, unless another problem is about them."""
    meant = {problem.meant for problem in problems}
    return [
        Problem(
            f"{name} is not set; it takes {entry.domain}.",
            where=None if file is None else str(file),
            hint=f"Write `{name}: …` in the file, or --{name.replace('_', '-')} as an option.",
        )
        for name, entry in catalogue().items()
        if entry.required and name not in stack.values and name not in meant
    ]
