from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import aliases, catalogue
from trimtab.hyperparameters.layers import resolve
from trimtab.hyperparameters.options import parse_options
from trimtab.hyperparameters.rendering import (
    canonical_name,
    change_text,
    docs_markdown,
    explain,
    explain_all,
)
from trimtab.hyperparameters.translations import FOREIGN

DOCS = Path(__file__).parents[2] / "docs" / "hyperparameters.md"


def unwrapped(page: str) -> str:
    return " ".join(page.split())


@pytest.mark.parametrize("name", list(catalogue()))
def test_a_page_tells_all_that_is_declared(name: str) -> None:
    entry = catalogue()[name]
    declaration = entry.declaration
    page = unwrapped(explain(name))
    assert page.startswith(name)
    told = (
        declaration.meaning,
        entry.domain,
        declaration.unit,
        declaration.auto,
        declaration.raising,
        declaration.lowering,
        declaration.guide,
        declaration.evidence,
        *declaration.aliases,
    )
    for text in told:
        assert text is None or unwrapped(text) in page
    assert max(len(line) for line in explain(name).splitlines()) <= 88


@pytest.mark.parametrize("name", [one.name for one in catalogue().values() if one.has_auto])
def test_a_page_of_what_may_be_auto_teaches_all_of_it(name: str) -> None:
    labels = {line.split()[0] for line in explain(name).splitlines() if re.match("  [a-z]", line)}
    taught = {"takes", "default", "guide", "evidence", "auto", "change"}
    if catalogue()[name].declaration.raising is not None:
        taught |= {"higher", "lower"}
    assert taught <= labels


@pytest.mark.parametrize("name", list(catalogue()))
def test_the_line_to_change_it_is_taken_as_it_stands(name: str, tmp_path: Path) -> None:
    file_line, option = re.findall("`([^`]+)`", change_text(catalogue()[name]))
    given = {"model": "m", "dataset": "d.jsonl"}
    lines = [f"{key}: {value}" for key, value in given.items() if key != name]
    config = tmp_path / "config.yaml"
    config.write_text("\n".join([*lines, file_line]), encoding="utf-8")
    from_file = dict(resolve(file=config).config)[name]
    options = parse_options(shlex.split(option))
    assert dict(resolve(values=given, options=options).config)[name] == from_file
    assert from_file != catalogue()[name].default


def test_names_of_all_kinds_come_to_the_catalogues() -> None:
    assert canonical_name("--lr") == canonical_name("learning-rate") == "learning_rate"
    assert canonical_name("bf16") == "precision"
    with pytest.raises(ConfigError, match="learning_rate"):
        canonical_name("learning_rte")
    gone = next(one for one in FOREIGN.values() if one.target is None)
    with pytest.raises(ConfigError, match=f"{gone.name} is no hyperparameter here"):
        canonical_name(gone.name)


def test_a_default_is_shown_as_a_file_would_hold_it() -> None:
    assert "default 1e-08" in unwrapped(explain("adam_epsilon"))
    assert "default {}" in unwrapped(explain("lr_scheduler_kwargs"))
    assert "default none, it must be given" in unwrapped(explain("model"))


def test_aliases_and_options_lead_to_the_same_page() -> None:
    for alias, name in aliases().items():
        assert explain(alias) == explain(name)
    assert explain("--learning-rate") == explain("learning_rate")


def test_another_tools_name_is_explained_by_what_it_becomes() -> None:
    for name, foreign in FOREIGN.items():
        page = explain(name)
        assert page.startswith(f"{name}\n")
        assert unwrapped(foreign.means) in unwrapped(page)
        if foreign.target is not None:
            assert explain(foreign.target) in page


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean learning_rate\?"):
        explain("learning_rte")


def test_all_names_stand_in_their_families() -> None:
    families = explain_all()
    names = [name for _, lines in families for name, _ in lines]
    assert sorted(names) == sorted(catalogue())
    assert families[0][0] == "model"
    assert len({family for family, _ in families}) == len(families)


def test_the_docs_page_is_fresh() -> None:
    assert DOCS.read_text(encoding="utf-8") == docs_markdown(), (
        "run: python -m trimtab.hyperparameters.rendering > docs/hyperparameters.md"
    )


def test_the_module_prints_the_docs_page() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-m", "trimtab.hyperparameters.rendering"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == docs_markdown()
