"""The command line's options, as names and texts.

Every hyperparameter is an option, in kebab or snake case, under its own name or an alias:
`--learning-rate 2e-4`, `--lr=2e-4`, `--packing`, `--no-packing`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import aliases, catalogue, nearest_names
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.hyperparameters.domains import members
from trimtab.hyperparameters.reading import Setting, read_value
from trimtab.hyperparameters.translations import FOREIGN, SPELLINGS

_YAML_1_1_WORDS = {"yes", "no", "on", "off"}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class UnknownOption(ConfigError):
    """No hyperparameter has this name; `option` is it with its dashes."""

    def __init__(self, option: str, *, hint: str) -> None:
        self.option = option
        super().__init__(f"there is no option {option}.", hint=hint)


def parse_options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of name (snake case, as written) and text, from arguments that are options alone.

    A switch needs no value, and `--no-NAME` turns it off; the word after it is its value where it
    is one that the switch takes. Raises ConfigError for an unknown option, with the nearest names,
    for a missing value, and for an argument that is no option.
    """
    positionals, pairs = split_options(arguments)
    if positionals:
        raise ConfigError(
            f"{positionals[0]!r} stands alone: it is no option and no option's value.",
            hint="Options look like `--learning-rate 2e-4`.",
        )
    return pairs


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The arguments that are no options, and the options as `parse_options` gives them."""
    positionals: list[str] = []
    pairs: list[tuple[str, str]] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("--") or argument == "--":
            positionals.append(argument)
            continue
        word, equals, text = argument[2:].partition("=")
        name = word.replace("-", "_")
        if is_switch(name):
            if not equals:
                has_value = bool(remaining) and _is_switch_value(name, remaining[0])
                if remaining and not has_value and remaining[0] in _YAML_1_1_WORDS:
                    raise ConfigError(
                        f"--{word} {remaining[0]}: it takes true or false.",
                        hint=f"--{word} alone turns it on, --no-{word} off.",
                    )
                text = remaining.pop(0) if has_value else "true"
        elif name.startswith("no_") and is_switch(name[3:]) and not equals:
            name, text = name[3:], "false"
        elif not is_known(name):
            raise _unknown_option(word)
        elif not equals:
            if not remaining or remaining[0].startswith("--"):
                raise ConfigError(f"--{word} has no value.", hint=f"It takes {_domain(name)}.")
            text = remaining.pop(0)
        pairs.append((name, text))
    return positionals, pairs


def is_known(name: str) -> bool:
    """Is it a hyperparameter, an alias of one, or a name that is translated?"""
    return name in catalogue() or name in aliases() or name in FOREIGN


def is_switch(name: str) -> bool:
    """May the option stand without a value?"""
    return bool(_switch_words(name))


def option_setting(name: str, text: str) -> Setting:
    """The setting that an option gives. Raises ConfigError where its text is no value.

    Fields that are texts alone take the text as it stands (a folder may be called `7`); the
    others read it as YAML, so numbers, lists and mappings are written as in a file.
    """
    name = name.removeprefix("--").replace("-", "_")
    where = "--" + name.replace("_", "-")
    canonical = aliases().get(name, name)
    takes_text = canonical in catalogue() and str in _kinds(canonical)
    if takes_text and len(_kinds(canonical)) == 1:
        return Setting(name, text, where)
    try:
        value = read_value(text)
    except ConfigError as error:
        if takes_text:
            return Setting(name, text, where)
        raise ConfigError(error.what, where=where, hint=error.hint) from error
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Setting(name, text if takes_text and not is_number else value, where)


def _is_switch_value(name: str, word: str) -> bool:
    """Is the word after a switch its value, a number where the field takes one?"""
    canonical = aliases().get(name, name)
    takes_number = canonical in catalogue() and bool({int, float} & _kinds(canonical))
    return word in _switch_words(name) or (takes_number and bool(_NUMBER.fullmatch(word)))


def _switch_words(name: str) -> tuple[str, ...]:
    """The values that a switch may be followed by; none where the option always has a value."""
    if name in FOREIGN:
        return FOREIGN[name].switch_words
    canonical = aliases().get(name, name)
    if canonical in SPELLINGS and SPELLINGS[canonical].switch_words:
        return SPELLINGS[canonical].switch_words
    if canonical in catalogue() and bool in _kinds(canonical):
        return ("true", "false")
    return ()


def _kinds(canonical: str) -> set[Any]:
    field = TrainingConfig.model_fields[canonical]
    return {kind for kind, _ in members(field.annotation, field.metadata)}


def _domain(name: str) -> str:
    if name in FOREIGN:
        return f"a value: {FOREIGN[name].means}"
    return catalogue()[aliases().get(name, name)].domain


def _unknown_option(word: str) -> UnknownOption:
    near = [f"--{name.replace('_', '-')}" for name in nearest_names(word)]
    hint = f"Did you mean {' or '.join(near)}?" if near else "`trimtab explain` lists the names."
    return UnknownOption(f"--{word}", hint=hint)
