"""One configuration of another tool, key by key, in the catalogue's names.

A key is carried (it means the same here, perhaps under another name or value) or it is lost, with
the reason and whether the model that comes out depends on it. Nothing is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.hyperparameters.problems import shown
from trimtab.hyperparameters.reading import Setting, scalar
from trimtab.hyperparameters.translations import SPELLINGS, TranslationError

Values = Mapping[str, Any]
"""Values by the catalogue's names."""


class Loss(Exception):
    """A key's value has no counterpart here.

    why: a phrase. changes_result: whether the trained model depends on it. instead: the nearest
    values, taken where the user allows the loss. about: the hyperparameters that would settle the
    matter if the user set them.
    """

    def __init__(
        self,
        why: str,
        *,
        changes_result: bool,
        instead: Values | None = None,
        about: Iterable[str] = (),
    ) -> None:
        super().__init__(why)
        self.why = why
        self.changes_result = changes_result
        self.instead = dict(instead or {})
        self.about = (*about, *self.instead)


@dataclass(frozen=True, slots=True)
class NotCarried:
    """A key that is left behind; fields as in `Loss`."""

    name: str
    value: Any
    why: str
    changes_result: bool
    about: tuple[str, ...] = ()
    where: str | None = None

    @property
    def shown_value(self) -> str:
        """The value as a sentence can hold it, without what opens an account."""
        return _HIDDEN if _is_secret(self.name, self.value) else shown(_without_secrets(self.value))


_HIDDEN: Final = "(hidden)"
_SECRET: Final = re.compile(r"(^|[_-])(token|key|password|secret)$", re.IGNORECASE)
_TOKENS_OF_TEXT: Final = re.compile(
    r"(^|[_.])(bos|eos|eot|pad|unk|sep|cls|mask|image|audio|video)_token$"
)


def _is_secret(name: str, value: Any) -> bool:
    """Whether the value is a text under a name that credentials have."""
    is_named_so = _SECRET.search(name) is not None and _TOKENS_OF_TEXT.search(name) is None
    return is_named_so and isinstance(value, str)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _HIDDEN if _is_secret(str(name), each) else _without_secrets(each)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    return value


@dataclass(frozen=True, slots=True)
class Difference:
    """What a tool does otherwise under the same values: told, and never refused.

    why: a phrase. about: the hyperparameters that settle it where the user sets them. applies:
    whether it touches a configuration.
    """

    why: str
    about: tuple[str, ...] = ()
    applies: Callable[[TrainingConfig], bool] = field(default=lambda config: True, compare=False)


Field = Callable[[Any], Values]
"""Another tool's key: its value to values of the catalogue, none where it asks for nothing here.

Raises Loss."""


@dataclass(frozen=True, eq=False)
class Dialect:
    """A tool's way to write a configuration.

    markers: keys that this tool's files have and others do not. begin: takes the keys that mean
    something together only. fields: every other key that the tool knows. prefixes: families of
    keys, by how they begin. defaults: what the tool takes for a key that is left out, by the
    catalogue's names.
    """

    name: str
    title: str
    markers: frozenset[str]
    begin: Callable[[Reading], None]
    fields: Mapping[str, Field]
    prefixes: Mapping[str, Field]
    defaults: Mapping[str, Any]


@dataclass
class Reading:
    """A file of another tool's on its way: settings that are left, values and losses so far.

    overrides: what the command line sets on top, as texts by the catalogue's names.
    """

    left: dict[str, Setting]
    values: dict[str, Setting] = field(default_factory=dict)
    not_carried: list[NotCarried] = field(default_factory=list)
    renamed: dict[str, list[str]] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    overrides: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Is the key there, with a value?"""
        return name in self.left and self.left[name].value is not None

    def take(self, name: str) -> Setting | None:
        """The key's setting, which is thereby dealt with; None where it is left out or empty."""
        setting = self.left.pop(name, None)
        return None if setting is None or setting.value is None else setting

    def apply(self, setting: Setting, field_: Field) -> None:
        """Carry one setting, or note its loss."""
        try:
            self.carry(setting, field_(setting.value))
        except Loss as loss:
            self.lose(setting, loss)

    def carry(self, setting: Setting, values: Values) -> None:
        """Take values from a setting; one that is taken already stays, one that is refused here is
        lost."""
        for target, value in values.items():
            if target in self.values:
                continue
            try:
                plain = checked(target, value)
            except Loss as loss:
                self.lose(setting, loss)
                continue
            self.values[target] = Setting(target, plain, setting.where)
            if target != setting.name:
                self.renamed.setdefault(setting.name, []).append(target)

    def lose(self, setting: Setting, loss: Loss) -> None:
        self.not_carried.append(
            NotCarried(
                setting.name,
                setting.value,
                loss.why,
                loss.changes_result,
                loss.about,
                setting.where,
            )
        )
        self.carry(setting, loss.instead)


def translate(
    settings: Iterable[Setting], dialect: Dialect, overrides: Mapping[str, str]
) -> Reading:
    """The settings of a file in the catalogue's names, with what is not carried."""
    reading = Reading({setting.name: setting for setting in settings}, overrides=overrides)
    dialect.begin(reading)
    for name in list(reading.left):
        setting = reading.take(name)
        if setting is not None:
            reading.apply(setting, _field(name, dialect))
    return reading


def _field(name: str, dialect: Dialect) -> Field:
    if name in dialect.fields:
        return dialect.fields[name]
    for prefix, field_ in dialect.prefixes.items():
        if name.startswith(prefix):
            return field_
    return lossy(f"not known as a key of {dialect.title}")


# The kinds of fields ----------------------------------------------------------------------------


def same(target: str) -> Field:
    """A key with the meaning and unit of a hyperparameter."""
    return lambda value: {target: checked(target, value)}


def harmless(why: str) -> Field:
    """A key that the trained model does not depend on."""

    def lose(value: Any) -> Values:
        raise Loss(why, changes_result=False)

    return lose


def lossy(why: str, *nothing_asked: Any, about: Iterable[str] = ()) -> Field:
    """A key that the trained model depends on, unless its value asks for nothing."""

    def lose(value: Any) -> Values:
        plain = as_bool(value)
        if any(type(plain) is type(one) and plain == one for one in nothing_asked):
            return {}
        raise Loss(why, changes_result=True, about=about)

    return lose


def switch(when_true: Values, when_false: Values | None = None) -> Field:
    def carry(value: Any) -> Values:
        return when_true if truth(value) else (when_false or {})

    return carry


# Values -----------------------------------------------------------------------------------------

_WORDS: Final = {
    **dict.fromkeys(("yes", "Yes", "YES", "on", "On", "ON", "true", "True"), True),
    **dict.fromkeys(("no", "No", "NO", "off", "Off", "OFF", "false", "False"), False),
}
_NUMERIC: Final = ("a number", "a whole number")


def as_bool(value: Any) -> Any:
    """A switch where the value is one, in the words of YAML 1.1 too; else the value."""
    return _WORDS.get(value, value) if isinstance(value, str) else value


def truth(value: Any) -> bool:
    """Raises Loss for a value that is no switch."""
    plain = as_bool(value)
    if not isinstance(plain, bool):
        raise Loss("not true or false", changes_result=True)
    return plain


def checked(target: str, value: Any) -> Any:
    """The value as the hyperparameter takes it; numbers may come as texts. Raises Loss."""
    entry = catalogue()[target]
    if target in SPELLINGS:
        try:
            value = SPELLINGS[target].respell(value)
        except TranslationError as error:
            changes_result = target not in _WITHOUT_EFFECT
            why = str(error).rstrip(".")
            raise Loss(why, changes_result=changes_result, about=(target,)) from error
    candidates = [value]
    if isinstance(value, str):
        candidates += [as_bool(value), scalar(value)]
    for candidate in candidates:
        try:
            _adapter(target).validate_python(candidate)
        except ValidationError:
            continue
        return candidate
    changes_result = target not in _WITHOUT_EFFECT
    raise Loss(
        f"{target} takes {entry.domain} here", changes_result=changes_result, about=(target,)
    )


_WITHOUT_EFFECT: Final = frozenset(
    {
        "activation_checkpointing",
        "logging_steps",
        "output_dir",
        "pad_to_multiple_of",
        "per_device_eval_batch_size",
        "report_to",
        "save_steps",
        "save_total_limit",
    }
)
"""Hyperparameters that the trained model does not depend on."""


@cache
def _adapter(target: str) -> TypeAdapter[Any]:
    declared = TrainingConfig.model_fields[target]
    kind: Any = declared.annotation
    for note in declared.metadata:
        kind = Annotated[kind, note]
    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))
