"""All verbs, one after the other, in a real process that is watched."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.audited import Audit, audited
from support.runs import tiny_config

TOKEN = "hf_CanaryCanaryCanaryCanaryCanary"
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")
VERBS = """
import signal, sys
from trimtab.cli.app import run
import trimtab
from trimtab.engine.observer import Silent

class Interrupting(Silent):
    def updated(self, record, num_steps):
        if record.step == 2:
            signal.raise_signal(signal.SIGTERM)

def done(*arguments):
    code = run(arguments)
    assert code == 0, (arguments, code)

done("inspect", "config.yaml")
done("plan", "config.yaml", "--quick")
done("plan", "config.yaml", "--json")
try:
    trimtab.train("config.yaml", observer=Interrupting())
except trimtab.Interrupted as stopped:
    print(stopped)
else:
    raise AssertionError("was not interrupted")
done("resume", "run")
done("generate", "run", "the question", "--max-new-tokens", "2")
done("report", "run")
done("explain", "lr")
done("schema")
run(["train", "config.yaml"])  # refused: the run is there already
run(["train", "--model", "model", "--dataset", "no.jsonl"])
"""


class Canary:
    """Pickled, it writes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self._mark, "unpickled"))


PICKLES = (
    "model/pytorch_model.bin",
    "model/training_args.bin",
    "model/optimizer.pt",
    "model/tokenizer.pkl",
    "data/cache-00.pkl",
    "data/rows.pt",
    "data/.cache.pickle",
)
CODE = ("model/modeling_llama.py", "model/tokenization_llama.py", "model/config.py", "data/rows.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    """A model and rows among pickles and code that nobody asked for."""
    folder = tmp_path_factory.mktemp("audited")
    (folder / "model").mkdir()
    for file in tiny_llama_folder.iterdir():
        (folder / "model" / file.name).write_bytes(file.read_bytes())
    (folder / "data").mkdir()
    config = tiny_config(folder / "data", Path("model"), save_steps=2)
    (folder / "data" / "rows.jsonl").rename(folder / "data" / "train.jsonl")
    config |= {"dataset": "data", "output_dir": "run", "max_steps": 4}
    text = yaml.safe_dump(config) + f"# my token is {TOKEN}\n"
    (folder / "config.yaml").write_text(text)
    canary = pickle.dumps(Canary(folder / "canary"))
    for name in PICKLES:
        (folder / name).write_bytes(canary)
    for name in CODE:
        (folder / name).write_text(f"open({str(folder / 'canary')!r}, 'w').write('imported')\n")
    return folder


@pytest.fixture(scope="module")
def audit(folder: Path) -> Audit:
    (folder / "verbs.py").write_text(VERBS)
    tokens = dict.fromkeys(TOKEN_VARIABLES, TOKEN)
    found = audited(["verbs.py"], folder, environment={"HF_HUB_OFFLINE": None, **tokens})
    assert found.returncode == 0, found.output
    return found


def test_the_canary_does_write(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))  # noqa: S301
    assert (tmp_path / "canary").read_text() == "unpickled"


def test_processes_of_every_kind_were_watched(audit: Audit) -> None:
    started = [note["details"][0] for note in audit.of("process started")]
    assert any("verbs.py" in one for one in started)
    assert any("template_worker" in one for one in started)
    assert any("-c" in one for one in started)


def test_nothing_is_unpickled(audit: Audit, folder: Path) -> None:
    # Jinja makes a magic number of its cache's format out of two pickles when it is imported.
    notes = [note for note in audit.of("pickle.") if "jinja2/bccache.py" not in note["stack"][-1]]
    assert notes == []
    assert not (folder / "canary").exists()


def test_no_code_beside_the_weights_or_the_rows_is_imported(audit: Audit, folder: Path) -> None:
    brought = (str(folder / "model"), str(folder / "data"))
    assert [note for note in audit.of("import") if note["details"][1].startswith(brought)] == []
    assert not (folder / "canary").exists()


def test_no_socket_listens_and_nothing_is_called(audit: Audit) -> None:
    assert audit.of("socket.") == []


def test_no_pickle_is_written(audit: Audit, folder: Path) -> None:
    for file in written(folder):
        assert not zipfile.is_zipfile(file), file
        start = file.read_bytes()[:2]
        assert not (start[:1] == b"\x80" and start[1:2] <= b"\x05"), file


def test_no_secret_is_in_any_file_or_output(audit: Audit, folder: Path) -> None:
    assert TOKEN not in audit.output
    files = written(folder)
    assert folder / "run" / "report.html" in files
    for file in files:
        assert TOKEN.encode() not in file.read_bytes(), file


def written(folder: Path) -> list[Path]:
    """What the verbs wrote: the run and the cache."""
    found = [
        file
        for root in ("run", ".cache", ".hf")
        for file in (folder / root).rglob("*")
        if file.is_file()
    ]
    assert len(found) > 20
    return found
