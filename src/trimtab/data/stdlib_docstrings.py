"""The demo's examples, read out of the Python standard library of the running interpreter.

An example is a function without its docstring, and the summary line that was taken out of it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import itertools
import json
import re
import sysconfig
import textwrap
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.runs.atomic import write_text

INSTRUCTION = "Write the summary line of this function's docstring."
SOURCE_LINES = range(4, 41)
MAX_SOURCE_CHARACTERS = 900
SUMMARY_CHARACTERS = range(15, 91)
SKIPPED_FOLDERS = {
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}
MAX_EVAL_SHARE_OF_ONE_MODULE = 8
"""At most an eighth of the held-out pairs come from one module."""

SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)\.(?=\s)")
PROSE = re.compile(r"[A-Z][a-z]*(,| [a-z0-9`'\"(*_A-Z-]).*")
NOT_PROSE = re.compile(r"->|>>>|::|==|\bTODO\b|\bXXX\b|[{}\\|]|^\w+\(")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class DocstringPair:
    """`module` is the file's path inside the standard library, `source` the dedented function."""

    module: str
    source: str
    summary: str


@dataclass(frozen=True, slots=True)
class PairFiles:
    """Where the pairs were written, and how many.

    num_found: distinct pairs in the standard library, of which these are a subset.
    """

    train: Path
    eval: Path
    num_found: int
    num_train: int
    num_eval: int


def write_pairs(folder: Path, *, num_train: int, num_eval: int, seed: int) -> PairFiles:
    """Write `train.jsonl` and `eval.jsonl`, rows of `prompt` and `completion`, into `folder`.

    No module is on both sides. The choice depends on the seed and the standard library alone.
    There are fewer training rows than `num_train` where the library has no more. Raises
    ConfigError where it has no sources, or too few for both sides.
    """
    library = standard_library_folder()
    pairs = find_pairs(library)
    if not pairs:
        raise ConfigError(
            "this Python ships without the sources of its standard library, which the demo "
            "learns from.",
            where=str(library),
            hint="Run it with a Python from python.org, your system's packages, conda or uv.",
        )
    train, held_out = split_by_module(pairs, num_train=num_train, num_eval=num_eval, seed=seed)
    if len(held_out) < num_eval or len(train) < num_eval:
        raise ConfigError(
            f"there are only {len(pairs)} documented functions in this Python's standard library, "
            f"too few to hold {num_eval} out and train on the rest.",
            where=str(library),
            hint="Run it with a complete Python.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = PairFiles(
        folder / "train.jsonl", folder / "eval.jsonl", len(pairs), len(train), len(held_out)
    )
    _write_rows(files.train, train)
    _write_rows(files.eval, held_out)
    return files


def standard_library_folder() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def find_pairs(library: Path) -> tuple[DocstringPair, ...]:
    """All pairs under a folder of Python files, in the order of their paths.

    Of pairs with the same source or the same summary, the first one is kept.
    """
    kept: list[DocstringPair] = []
    seen: set[str] = set()
    for path in _python_files(library):
        module = path.relative_to(library).as_posix()
        for source, summary in _pairs_of_file(path):
            keys = {source, summary.casefold()}
            if keys.isdisjoint(seen):
                seen |= keys
                kept.append(DocstringPair(module, source, summary))
    return tuple(kept)


def split_by_module(
    pairs: Sequence[DocstringPair], *, num_train: int, num_eval: int, seed: int
) -> tuple[list[DocstringPair], list[DocstringPair]]:
    """Training and held-out pairs; a module's pairs are on one side only.

    The order is that of a hash of the seed with the module or the pair, so a function that one
    release of Python adds moves few others.
    """
    modules: dict[str, list[DocstringPair]] = {}
    for pair in _shuffled(pairs, seed):
        modules.setdefault(pair.module, []).append(pair)
    most_of_one_module = max(1, num_eval // MAX_EVAL_SHARE_OF_ONE_MODULE)
    held_out: list[DocstringPair] = []
    held_out_modules: set[str] = set()
    for module in sorted(modules, key=lambda name: _rank(seed, name)):
        if len(held_out) >= num_eval:
            break
        held_out += modules[module][:most_of_one_module]
        held_out_modules.add(module)
    rest = [pair for pair in pairs if pair.module not in held_out_modules]
    return _shuffled(rest, seed)[:num_train], _shuffled(held_out[:num_eval], seed)


def _shuffled(pairs: Iterable[DocstringPair], seed: int) -> list[DocstringPair]:
    return sorted(pairs, key=lambda pair: _rank(seed, pair.source))


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()


def _write_rows(path: Path, pairs: Iterable[DocstringPair]) -> None:
    lines = [
        json.dumps({"prompt": f"{INSTRUCTION}\n\n{pair.source}", "completion": pair.summary})
        for pair in pairs
    ]
    text = "".join(f"{line}\n" for line in lines)
    # What was measured on a file holds for as long as its time stays what it is.
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)


def _python_files(library: Path) -> list[Path]:
    files = [
        path
        for path in library.rglob("*.py")
        if SKIPPED_FOLDERS.isdisjoint(path.relative_to(library).parts[:-1])
    ]
    return sorted(files, key=lambda path: path.relative_to(library).as_posix())


def _pairs_of_file(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with tokenize.open(path) as file:
            text = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError):
        # A distribution may ship templates and deliberately broken files among its modules.
        return
    # Not splitlines(): a form feed ends no line for the parser.
    lines = text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, Function) and not node.name.startswith("__"):
            summary = _summary(ast.get_docstring(node))
            source = None if summary is None else _source_without_docstring(node, lines)
            if summary is not None and source is not None:
                yield source, summary


def _summary(docstring: str | None) -> str | None:
    """The first sentence, ended by one full stop; None where it is no fit sentence."""
    paragraph = inspect.cleandoc(docstring or "").split("\n\n")[0]
    text = " ".join(paragraph.split())
    end = SENTENCE_END.search(text)
    sentence = text[: end.end()] if end else text
    if sentence[-1:].isalnum() or sentence[-1:] in {")", "'", '"', "`"}:
        sentence += "."
    is_fit = (
        len(sentence) in SUMMARY_CHARACTERS
        and sentence.isascii()
        and sentence.endswith(".")
        and not sentence.endswith("..")
        and PROSE.fullmatch(sentence)
        and not NOT_PROSE.search(sentence)
    )
    return sentence if is_fit else None


def _source_without_docstring(node: Function, lines: Sequence[str]) -> str | None:
    """The dedented function; None where it is not fit, or would not parse to itself again."""
    docstring, *body = node.body
    if not body or docstring.end_lineno is None:
        return None
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    after = lines[docstring.end_lineno : node.end_lineno]
    kept = [
        *lines[first - 1 : docstring.lineno - 1],
        *itertools.dropwhile(lambda line: not line.strip(), after),
    ]
    source = "\n".join(line.rstrip() for line in textwrap.dedent("\n".join(kept)).split("\n"))
    is_fit = (
        len(kept) in SOURCE_LINES
        and len(source) <= MAX_SOURCE_CHARACTERS
        and source.isascii()
        and _is_same_function(source, node, body)
    )
    return source if is_fit else None


def _is_same_function(source: str, node: Function, body: list[ast.stmt]) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = ast.parse(source).body
    except (SyntaxError, ValueError):
        return False
    node.body = body
    return [ast.dump(one) for one in parsed] == [ast.dump(node)]
