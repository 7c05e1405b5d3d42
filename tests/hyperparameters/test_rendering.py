from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import aliases, catalogue
from trimtab.hyperparameters.rendering import docs_markdown, explain, explain_all
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
        declaration.evidence,
        *declaration.aliases,
    )
    for text in told:
        assert text is None or unwrapped(text) in page
    assert max(len(line) for line in explain(name).splitlines()) <= 88


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
