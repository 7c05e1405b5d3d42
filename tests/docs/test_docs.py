"""The documents do what they say: their configurations, commands and programs run."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.tiny import save_tiny_model

from trimtab import errors
from trimtab.cli.app import app, run
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.layers import resolve
from trimtab.interop.importing import dialect_of, import_config

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
QUICKSTART = ROOT / "docs" / "quickstart.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES_THAT_RUN = [README, QUICKSTART, ROOT / "docs" / "tune.md"]
MAX_README_LINES = 200

# peft asks a model by the older of transformers' two names.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)[^)]*\)")


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def commands(text: str) -> list[list[str]]:
    """The arguments of each `$ trimtab …` line."""
    lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ trimtab ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def write_config(block: Block, folder: Path) -> Path:
    """A configuration names its own file in its first line: `# config.yaml`."""
    title = block.text.splitlines()[0]
    assert title.startswith("# ")
    assert title.endswith(".yaml")
    path = folder / title.removeprefix("# ")
    path.write_text(block.text, encoding="utf-8")
    return path


def write_quick_config(block: Block, folder: Path) -> None:
    """The same with short answers: a tiny random model never ends one by itself."""
    path = write_config(block, folder)
    if "max_new_tokens" not in block.text and dialect_of(path) is None:
        path.write_text(f"{block.text}max_new_tokens: 8\n", encoding="utf-8")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the model and the rows that the pages speak of, both tiny."""
    save_tiny_model(tmp_path / "models" / "SmolLM2-135M-Instruct")
    rows = [
        {"question": f"How many legs do {n} cats have?", "answer": f"{n} cats have {4 * n} legs."}
        for n in range(1, 49)
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "questions.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES_THAT_RUN, ids=lambda page: page.name)
def test_configurations_resolve(page: Path, tmp_path: Path) -> None:
    configurations = [block for block in blocks(page) if block.language == "yaml"]
    assert configurations
    for block in configurations:
        file = write_config(block, tmp_path)
        theirs = import_config(file)
        config = (resolve(file=file) if theirs is None else theirs.resolved).config
        assert config.model == "models/SmolLM2-135M-Instruct"
        assert config.dataset == "questions.jsonl"


@pytest.mark.parametrize("page", PAGES_THAT_RUN, ids=lambda page: page.name)
def test_commands_and_programs_run_in_their_order(
    page: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one place, so that a program's plan recalls what the commands have measured."""
    num_run = 0
    programs = []
    for block in blocks(page):
        if block.language == "yaml":
            write_quick_config(block, workplace)
        elif block.language == "python":
            programs.append(block.text)
        elif block.language == "console":
            for arguments in commands(block.text):
                code = run(arguments)
                shown = capsys.readouterr()
                assert code == 0, f"{arguments}: {shown.err}"
                assert shown.out.strip(), f"{arguments} printed nothing"
                if "--json" in arguments:
                    json.loads(shown.out)
                num_run += 1
    assert num_run >= 3
    assert programs
    script = workplace / "program.py"
    script.write_text("\n".join(programs), encoding="utf-8")
    namespace = runpy.run_path(str(script), run_name="__main__")
    assert namespace["summary"].status == "done"
    assert Path(namespace["summary"].run).is_dir()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = re.findall(r"(?:`|\$ )trimtab ([a-z]+)", page.read_text(encoding="utf-8"))
    assert set(named) <= known


def test_the_readme_fits_a_sitting() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < MAX_README_LINES


def test_the_readme_names_every_room() -> None:
    package = ROOT / "src" / "trimtab"
    rooms = {path.name + "/" for path in package.iterdir() if (path / "__init__.py").exists()}
    tree = next(block.text for block in blocks(README) if block.text.startswith("src/trimtab/\n"))
    listed = re.findall(r"^  (\w+/)", tree, re.MULTILINE)
    assert sorted(listed) == sorted(rooms)
    for folder in re.findall(r"^(\w+/) ", tree, re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_the_readme_lists_the_exit_codes() -> None:
    table = README.read_text(encoding="utf-8").split("Exit codes:")[1].split("## ")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    kinds = errors.TrimtabError.__subclasses__()
    assert {kind.exit_code for kind in kinds} | {0} == listed


def test_the_guide_has_its_thirteen_rows_with_names_of_the_catalogue() -> None:
    text = README.read_text(encoding="utf-8")
    table = text[text.index("| row | subject") :].split("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == [f"| {number}" for number in range(1, 14)]
    for name in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", table):
        assert name in catalogue(), name


def test_the_architecture_page_shows_the_contract_that_is_held() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    shown = [block.text.splitlines() for block in blocks(ARCHITECTURE)]
    assert layers in shown
