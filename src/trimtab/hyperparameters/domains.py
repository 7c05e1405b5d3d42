"""The values that a field takes, as a sentence's end, rendered from its type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from trimtab.hyperparameters.declaration import LARGEST_INT, FreeText

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
}


def domain_text(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """`auto, or a number > 0`, from `Literal["auto"] | Annotated[float, Field(gt=0)]`."""
    parts: list[str] = []
    only_words = True
    for member, constraints in members(annotation, metadata):
        if get_origin(member) is Literal:
            parts += [str(value) for value in get_args(member)]
        else:
            parts.append(_phrase(member, constraints))
            only_words = False
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + (" or " if only_words else ", or ") + parts[-1]


def members(annotation: Any, metadata: Iterable[Any] = ()) -> Iterator[tuple[Any, list[Any]]]:
    """The types that a field's union is made of, each with its own constraints."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from members(member, metadata)
    elif origin is Annotated:
        inner, *notes = get_args(annotation)
        yield from members(inner, [*metadata, *_flat(notes)])
    else:
        yield annotation, _flat(metadata)


def _flat(notes: Iterable[Any]) -> list[Any]:
    flat: list[Any] = []
    for note in notes:
        flat += _flat(note.metadata) if isinstance(note, FieldInfo) else [note]
    return flat


def _phrase(kind: Any, constraints: list[Any]) -> str:
    for note in constraints:
        if isinstance(note, FreeText):
            return note.words
    if get_origin(kind) is tuple:
        return "a list of names"
    if get_origin(kind) is dict:
        return "a mapping"
    return " ".join([_KINDS[kind], *_bounds(constraints)])


def _bounds(constraints: list[Any]) -> list[str]:
    bounds: list[str] = []
    for note in constraints:
        match note:
            case annotated_types.Gt(gt=limit):
                bounds.append(f"> {limit}")
            case annotated_types.Ge(ge=limit):
                bounds.append(f"≥ {limit}")
            case annotated_types.Lt(lt=limit):
                bounds.append(f"< {limit}")
            case annotated_types.Le(le=limit) if limit != LARGEST_INT:
                bounds.append(f"≤ {limit}")
            case _:
                pass
    return [" and ".join(bounds)] if bounds else []
