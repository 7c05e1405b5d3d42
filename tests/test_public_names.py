"""What `trimtab` exports, so that a name is added or taken away on purpose."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

import trimtab

VERBS = {
    "demo",
    "explain",
    "export_config",
    "export_result",
    "forecast_plan",
    "generate",
    "import_config",
    "inspect",
    "plan",
    "push_to_hub",
    "resume",
    "study",
    "study_guide",
    "train",
    "tune",
    "write_report",
}
VALUES = {
    "Answer",
    "Forecast",
    "GuideResult",
    "Inspection",
    "Plan",
    "StudyResult",
    "TrainingConfig",
    "TuneResult",
}
ERRORS = {
    "ConfigError",
    "DataError",
    "DoesNotFit",
    "GuardStop",
    "Interrupted",
    "TrimtabError",
}


def test_the_names() -> None:
    assert set(trimtab.__all__) == VERBS | VALUES | ERRORS
    assert trimtab.__all__ == sorted(trimtab.__all__)


@pytest.mark.parametrize("name", sorted(VERBS | VALUES | ERRORS))
def test_each_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(trimtab, name)
    # A room that can be called is found by its full name once something of it was imported.
    assert found.__name__.removeprefix("trimtab.") == name
    assert inspect.getdoc(found)


def test_types_are_told_of_the_same_names() -> None:
    """A type checker reads the imports, Python the table of homes."""
    tree = ast.parse(inspect.getsource(trimtab))
    checked = {
        alias.name
        for block in tree.body
        if isinstance(block, ast.If)
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert checked == set(trimtab.__all__)


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, trimtab; print(sorted({'torch', 'pydantic', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
