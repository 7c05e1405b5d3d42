"""The launch files of examples/ and the commands of docs/clusters.md are ones that would start.

Their shells accept them, and each command's own option parser accepts its words. Shell variables
stand for words of their own; no Slurm and no SkyPilot is asked.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from ruamel.yaml import YAML

from trimtab.cli.app import app
from trimtab.hyperparameters.options import split_options

ROOT = Path(__file__).parents[2]
SBATCH = sorted((ROOT / "examples").glob("*.sbatch"))
SKYPILOT = ROOT / "examples" / "skypilot.yaml"
CLUSTERS = ROOT / "docs" / "clusters.md"
NUMBERS = {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "1234"}
NUMBERS |= {f"SKYPILOT_{name}": "2" for name in ("NUM_NODES", "NODE_RANK", "NUM_GPUS_PER_NODE")}


def script_of_skypilot(part: str) -> str:
    text = YAML(typ="safe").load(SKYPILOT)[part]
    assert isinstance(text, str)
    return text


def scripts() -> dict[str, str]:
    found = {path.name: path.read_text(encoding="utf-8") for path in SBATCH}
    return found | {f"skypilot {part}": script_of_skypilot(part) for part in ("setup", "run")}


def commands(script: str) -> Iterator[list[str]]:
    """The words of each line of a script, with its variables and arrays filled in."""
    script = re.sub(r"\\\n\s*", " ", script)
    array = re.compile(r"^\s*(\w+)=\(\n(.*?)\n\s*\)$", re.S | re.M)
    for name, words in array.findall(script):
        script = array.sub("", script).replace(f'"${{{name}[@]}}"', " ".join(words.split("\n")))
    script = re.sub(r"\$\(\(.*?\)\)", "2", script)
    for name, number in NUMBERS.items():
        script = re.sub(rf"\$\{{?{name}\b\}}?", number, script)
    for line in script.splitlines():
        if not line.lstrip().startswith("#"):
            yield shlex.split(line.rstrip("&"), comments=True)


def after(word: str, words: Sequence[str]) -> list[str]:
    return list(words[words.index(word) + 1 :])


def documented() -> str:
    blocks = re.findall(r"```console\n(.*?)```", CLUSTERS.read_text(encoding="utf-8"), re.S)
    return re.sub(r"^[\w-]*\$ ", "", "\n".join(blocks), flags=re.M)


ALL = {**scripts(), "docs/clusters.md": documented()}


def all_commands(word: str) -> list[list[str]]:
    return [
        after(word, words)
        for script in ALL.values()
        for words in commands(script)
        if word in words and "install" not in words
    ]


def test_there_are_files_for_slurm_with_both_launchers() -> None:
    assert [path.name for path in SBATCH] == ["slurm-ray.sbatch", "slurm-torchrun.sbatch"]


@pytest.mark.parametrize("name", sorted(scripts()))
def test_bash_accepts_it(name: str) -> None:
    done = subprocess.run(
        ["bash", "-n"], input=scripts()[name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.name)
def test_slurm_is_asked_for_one_task_a_machine(path: Path) -> None:
    asked = re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", path.read_text(encoding="utf-8"), re.M)
    assert dict(asked)["nodes"] == "2"
    assert dict(asked)["ntasks-per-node"] == "1"


def test_skypilot_has_as_many_machines_and_a_shared_folder() -> None:
    task = YAML(typ="safe").load(SKYPILOT)
    assert task["num_nodes"] == 2
    assert task["volumes"] == {"/shared": "trimtab-runs"}
    assert f"/shared/runs/{'$RUN'}" in task["run"]
    assert task["envs"] == {"RUN": "first"}


def test_trimtab_accepts_its_commands() -> None:
    click_group = typer.main.get_command(app)
    found = all_commands("trimtab")
    assert {words[0] for words in found} == {"train", "resume"}
    assert len(found) == 10
    for words in found:
        command = click_group.commands[words[0]]  # type: ignore[attr-defined]
        context = command.make_context(words[0], words[1:])
        if words[0] == "train":
            positional, options = split_options(context.params["arguments"])
            assert positional == ["config.yaml"]
            assert {name for name, _ in options} <= {"output_dir"}


def test_torchrun_accepts_its_commands() -> None:
    from torch.distributed.run import get_args_parser

    found = all_commands("torchrun")
    assert len(found) == 5
    for words in found:
        parsed = get_args_parser().parse_args(words)
        assert parsed.nnodes == "2"
        assert parsed.module and parsed.training_script == "trimtab"
        assert parsed.training_script_args[0] in {"train", "resume"}


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_accepts_its_commands() -> None:
    from ray.scripts.scripts import start

    found = [words[1:] for words in all_commands("ray") if words[0] == "start"]
    assert len(found) == 4
    for words in found:
        start.make_context("start", words)
