"""The house rules that a machine can hold: directions, weight of imports, sizes, no pickle."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "trimtab"
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_FILE_LINES = 420
MAX_FUNCTION_LINES = 70
LISTS_OF_DECLARATIONS = {"hyperparameters/config.py", "hyperparameters/translations.py::_foreign"}
"""A file and a function that hold no logic but a list, longer with each entry."""

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "matplotlib",
    "pandas",
    "optuna",
    "scipy",
    "statsmodels",
)
LIGHT_MODULES = (
    "trimtab",
    "trimtab.planning.planner",
    "trimtab.workflow.planning",
    "trimtab.hyperparameters.layers",
    "trimtab.hyperparameters.rendering",
    "trimtab.runs.folder",
    "trimtab.cli.app",
    "trimtab.interop.importing",
)
PICKLE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLE_CALLS = {("torch", "load"), ("torch", "save"), ("pandas", "read_pickle")}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_leave_heavy_libraries_unloaded(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_imports_point_down() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_small_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), "a module says what it is in its first line"
    if name_of(path) not in LISTS_OF_DECLARATIONS:
        assert len(text.splitlines()) <= MAX_FILE_LINES
    for function in functions(tree):
        assert function.end_lineno is not None
        num_lines = function.end_lineno - function.lineno + 1
        if f"{name_of(path)}::{function.name}" not in LISTS_OF_DECLARATIONS:
            assert num_lines <= MAX_FUNCTION_LINES, f"{function.name} has {num_lines} lines"


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_pickle_is_written_or_read(path: Path) -> None:
    assert pickles(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as tidy",
        "import torch\ntorch.load(path)",
        "torch.save(state, path)",
        "from torch import load",
        "model.save_pretrained(folder, safe_serialization=False)",
        "numpy.load(path, allow_pickle=True)",
    ],
)
def test_pickle_would_be_seen(code: str) -> None:
    assert pickles(code)


def pickles(text: str) -> list[str]:
    """The places of a module that write or read pickles."""
    found = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names if name.name in PICKLE_MODULES]
            case ast.ImportFrom(module=str(module), names=names):
                found += [module] if module in PICKLE_MODULES else []
                found += [name.name for name in names if (module, name.name) in PICKLE_CALLS]
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                found += [f"{owner}.{attribute}"] if (owner, attribute) in PICKLE_CALLS else []
            case ast.keyword(arg="safe_serialization", value=ast.Constant(value=False)):
                found.append("safe_serialization=False")
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                found.append("allow_pickle=True")
            case _:
                pass
    return found
