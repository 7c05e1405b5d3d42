from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from trimtab.hyperparameters.declaration import FreeText
from trimtab.hyperparameters.domains import domain_text


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (Literal["lora", "full"], "lora or full"),
        (Annotated[int, Field(ge=0)], "a whole number ≥ 0"),
        (Literal["auto"] | Annotated[float, Field(gt=0)], "auto, or a number > 0"),
        (Annotated[float, Field(ge=0, lt=1)] | None, "a number ≥ 0 and < 1, or null"),
        (
            Literal["auto"] | Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)],
            "auto, a whole number ≥ 1, or a number > 0 and < 1",
        ),
        (Literal["all"] | tuple[str, ...], "all, or a list of names"),
        (Annotated[str, FreeText("a path")], "a path"),
        (dict[str, str], "a mapping"),
    ],
)
def test_a_type_in_words(annotation: Any, words: str) -> None:
    assert domain_text(annotation) == words
