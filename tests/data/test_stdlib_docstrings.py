"""The demo's examples: a made-up library for each rule, and the real one for its size."""

from __future__ import annotations

import ast
import json
import os
import textwrap
from pathlib import Path

import pytest

from trimtab.data import stdlib_docstrings
from trimtab.data.stdlib_docstrings import (
    INSTRUCTION,
    DocstringPair,
    find_pairs,
    split_by_module,
    standard_library_folder,
    write_pairs,
)
from trimtab.errors import ConfigError


def write_module(library: Path, name: str, text: str) -> None:
    path = library / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")


def function(name: str, docstring: str, *, num_body_lines: int = 4) -> str:
    body = "".join(f"    {name}_{number} = {number}\n" for number in range(num_body_lines))
    return f'def {name}():\n    """{docstring}"""\n{body}'


def summaries(library: Path) -> list[str]:
    return [pair.summary for pair in find_pairs(library)]


@pytest.fixture(scope="module")
def real_pairs() -> tuple[DocstringPair, ...]:
    return find_pairs(standard_library_folder())


def test_a_method_is_dedented_and_loses_its_docstring_but_not_its_decorator(tmp_path: Path) -> None:
    write_module(
        tmp_path,
        "box.py",
        '''
        class Box:
            @property
            def volume(self):
                """Return the volume
                of the box.

                Longer words.
                """

                # Sides are in metres.
                sides = self.sides
                return sides[0] * sides[1] * sides[2]
        ''',
    )
    source = (
        "@property\n"
        "def volume(self):\n"
        "    # Sides are in metres.\n"
        "    sides = self.sides\n"
        "    return sides[0] * sides[1] * sides[2]"
    )
    assert find_pairs(tmp_path) == (
        DocstringPair("box.py", source, "Return the volume of the box."),
    )


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ("Return the number of rows", "Return the number of rows."),
        ("Return the rows.  Then count them.", "Return the rows."),
        ("Return the rows. then count them.", "Return the rows."),
        ("Read a table, e.g. Parquet, into rows.", "Read a table, e.g. Parquet, into rows."),
        ("Return all `rows`", "Return all `rows`."),
    ],
)
def test_the_summary_is_the_first_sentence_with_a_full_stop(
    tmp_path: Path, docstring: str, summary: str
) -> None:
    write_module(tmp_path, "one.py", function("one", docstring))
    assert summaries(tmp_path) == [summary]


@pytest.mark.parametrize(
    "docstring",
    [
        "Too short.",
        "Return " + "very " * 20 + "much.",
        "S.upper() -> a string in upper case",
        "write(text) puts the text into the file",
        "The options that are understood are:",
        "Return the rows and the columns...",
        "lowercase beginnings are rarely sentences.",
        "Return the Ångström of the rows.",
    ],
)
def test_what_is_no_plain_sentence_is_left_out(tmp_path: Path, docstring: str) -> None:
    write_module(tmp_path, "one.py", function("one", docstring))
    assert summaries(tmp_path) == []


def test_lengths_are_limited(tmp_path: Path) -> None:
    write_module(tmp_path, "a.py", function("short", "Return too few lines.", num_body_lines=2))
    write_module(tmp_path, "b.py", function("least", "Return the fewest lines.", num_body_lines=3))
    write_module(tmp_path, "c.py", function("most", "Return the most lines.", num_body_lines=39))
    write_module(tmp_path, "d.py", function("long", "Return too many lines.", num_body_lines=40))
    write_module(tmp_path, "e.py", function("n" * 200, "Return too wide a function."))
    assert summaries(tmp_path) == ["Return the fewest lines.", "Return the most lines."]


def test_a_function_that_dedenting_would_change_is_left_out(tmp_path: Path) -> None:
    indented = textwrap.indent(
        function("one", "Return a text of several lines.") + '    text = """\n        x"""\n',
        "    ",
    )
    write_module(tmp_path, "one.py", f"class One:\n{indented}")
    assert summaries(tmp_path) == []


def test_a_form_feed_does_not_shift_the_lines(tmp_path: Path) -> None:
    write_module(tmp_path, "one.py", "x = 1\n\f\n" + function("one", "Return the page's rows."))
    (pair,) = find_pairs(tmp_path)
    assert pair.source.startswith("def one():\n    one_0 = 0")


def test_same_source_or_same_summary_is_kept_once(tmp_path: Path) -> None:
    write_module(tmp_path, "a.py", function("one", "Return the first of them."))
    write_module(tmp_path, "b.py", function("one", "Return another text for them."))
    write_module(tmp_path, "c.py", function("two", "Return the First of them"))
    assert [(pair.module, pair.summary) for pair in find_pairs(tmp_path)] == [
        ("a.py", "Return the first of them.")
    ]


def test_tests_dunders_broken_files_and_installed_packages_are_passed_over(tmp_path: Path) -> None:
    for folder in ("test", "email/tests", "idlelib", "site-packages/pip", "lib2to3"):
        write_module(tmp_path, f"{folder}/x.py", function("one", "Return what is not the demo's."))
    write_module(tmp_path, "dunder.py", function("__one__", "Return what a protocol asks for."))
    write_module(tmp_path, "broken.py", "def one(:\n")
    (tmp_path / "latin.py").write_bytes(b"# coding: utf-8\nname = '\xe9'\n")
    (tmp_path / "unknown.py").write_bytes(b"# coding: no-such-encoding\n")
    write_module(tmp_path, "good.py", "text = '\\d'\n" + function("one", "Return the good one."))
    assert summaries(tmp_path) == ["Return the good one."]


def made_up_pairs(*, num_modules: int, num_each: int) -> list[DocstringPair]:
    return [
        DocstringPair(f"module_{module}.py", f"def f_{module}_{number}(): …", "Return it.")
        for module in range(num_modules)
        for number in range(num_each)
    ]


def test_no_module_is_on_both_sides_and_none_fills_the_held_out_side() -> None:
    pairs = made_up_pairs(num_modules=30, num_each=20)
    train, held_out = split_by_module(pairs, num_train=200, num_eval=64, seed=7)
    assert (len(train), len(held_out)) == (200, 64)
    train_modules = {pair.module for pair in train}
    held_out_modules = [pair.module for pair in held_out]
    assert train_modules.isdisjoint(held_out_modules)
    assert max(map(held_out_modules.count, held_out_modules)) == 64 // 8
    assert len(set(train) | set(held_out)) == 264


def test_the_split_follows_the_seed_and_not_the_order_of_the_pairs() -> None:
    pairs = made_up_pairs(num_modules=30, num_each=20)
    split = split_by_module(pairs, num_train=200, num_eval=64, seed=7)
    assert split_by_module(pairs[::-1], num_train=200, num_eval=64, seed=7) == split
    assert split_by_module(pairs, num_train=200, num_eval=64, seed=8) != split


def test_this_interpreter_has_enough_good_pairs(real_pairs: tuple[DocstringPair, ...]) -> None:
    assert len(real_pairs) > 1500
    assert len({pair.source for pair in real_pairs}) == len(real_pairs)
    assert len({pair.summary.casefold() for pair in real_pairs}) == len(real_pairs)
    for pair in real_pairs:
        (parsed,) = ast.parse(pair.source).body
        assert isinstance(parsed, ast.FunctionDef | ast.AsyncFunctionDef)
        assert ast.get_docstring(parsed) is None
        assert len(pair.source) <= 900
        assert 15 <= len(pair.summary) <= 90


def test_files_are_written_and_written_alike(
    tmp_path: Path, real_pairs: tuple[DocstringPair, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdlib_docstrings, "find_pairs", lambda _library: real_pairs)
    files = write_pairs(tmp_path / "one", num_train=300, num_eval=40, seed=0)
    again = write_pairs(tmp_path / "two", num_train=300, num_eval=40, seed=0)
    assert (files.num_found, files.num_train, files.num_eval) == (len(real_pairs), 300, 40)
    assert files.train.read_bytes() == again.train.read_bytes()
    assert files.eval.read_bytes() == again.eval.read_bytes()
    os.utime(files.train, (1, 1))
    files.eval.write_text("another")
    write_pairs(tmp_path / "one", num_train=300, num_eval=40, seed=0)
    assert files.train.stat().st_mtime == 1, "written again without a change"
    assert files.eval.read_bytes() == again.eval.read_bytes()
    train, held_out = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (files.train, files.eval)
    )
    assert (len(train), len(held_out)) == (300, 40)
    known = {pair.source: pair for pair in real_pairs}
    modules = [
        {known[row["prompt"].removeprefix(f"{INSTRUCTION}\n\n")].module for row in rows}
        for rows in (train, held_out)
    ]
    assert modules[0].isdisjoint(modules[1])
    for row in train + held_out:
        source = row["prompt"].removeprefix(f"{INSTRUCTION}\n\n")
        assert row == {"prompt": f"{INSTRUCTION}\n\n{source}", "completion": known[source].summary}


@pytest.mark.parametrize("text", ["", function("one", "Return the only function.")])
def test_a_python_without_enough_sources_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    library = tmp_path / "library"
    write_module(library, "one.py", text)
    monkeypatch.setattr(stdlib_docstrings, "standard_library_folder", lambda: library)
    with pytest.raises(ConfigError, match="standard library") as refused:
        write_pairs(tmp_path / "pairs", num_train=10, num_eval=5, seed=0)
    assert refused.value.where == str(library)
    assert not (tmp_path / "pairs").exists()
