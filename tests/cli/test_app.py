"""The command: exit codes, what goes to stdout, one short paragraph for an error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.plans import measured_plan
from support.runs import tiny_config, write_rows

from trimtab.cli.app import run
from trimtab.cli.run_end import RESULT_KEYS
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.planning.plan import Plan


def options_of(config: dict[str, object]) -> list[str]:
    return [part for name, value in config.items() for part in (f"--{name}", str(value))]


@pytest.fixture
def options(tmp_path: Path, tiny_llama_folder: Path) -> list[str]:
    return options_of(tiny_config(tmp_path, tiny_llama_folder, max_steps=2))


def test_train_prints_one_json_object_on_stdout(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", *options, "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert tuple(result) == RESULT_KEYS
    assert result["num_steps"] == 2
    assert "update 2/2" in captured.err
    assert (Path(result["run"]) / "report.html").is_file()


def test_train_shows_the_plan_the_samples_and_the_result(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", *options]) == 0
    shown = capsys.readouterr().out
    for name in catalogue():
        assert name in shown, name
    for word in ("held-out loss", "adapter", "report.html", "tuned", "reference", "predicted"):
        assert word in shown, word


def test_plan_json_has_its_shape_and_trains_nothing(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", *options, "--quick", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in plan["decisions"]} == set(catalogue())
    for decision in plan["decisions"]:
        assert {"name", "value", "origin", "because", "facts"} <= decision.keys()
        assert decision["because"]
    assert plan["predictions"].keys() == {
        "num_steps", "tokens_per_step", "peak_memory_bytes", "worst_case_memory_bytes",
        "step_time_s", "total_time_s",
    }  # fmt: skip
    known = {fact["id"] for fact in plan["facts"]}
    used = {fact for decision in plan["decisions"] for fact in decision["facts"]}
    assert used <= known
    assert not (tmp_path / "run").exists()


def test_a_noise_scale_is_probed_where_it_is_asked_for(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"plan": None, "noise_scale": False}

    def planned(config: Path | None, **arguments: Any) -> Plan:
        given.update(arguments)
        return measured_plan()

    monkeypatch.setattr("trimtab.plan", planned)
    assert run(["plan", *options, "--noise-scale"]) == 0
    assert given["noise_scale"] is True
    assert "gradient noise" in capsys.readouterr().out
    assert run(["plan", *options]) == 0
    assert given["noise_scale"] is False


def test_a_quick_plan_cannot_probe_the_noise_scale(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", *options, "--quick", "--noise-scale"]) == 2
    assert "a quick plan measures nothing" in capsys.readouterr().err


def test_a_quick_plan_is_marked_and_loads_no_torch(options: list[str], tmp_path: Path) -> None:
    shown = _in_a_fresh_process(["plan", *options, "--quick"])
    assert "rules and arithmetic" in shown
    assert all(name in shown for name in catalogue())
    assert not (tmp_path / "run").exists()


def test_why_unfolds_one_decision_under_any_of_its_names(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", *options, "--quick", "--why", "lr"]) == 0
    shown = capsys.readouterr().out
    assert "Why learning_rate" in shown
    assert "weight_decay" not in shown
    assert run(["plan", *options, "--quick", "--why", "micro-batch-size", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decision"]["name"] == "per_device_train_batch_size"
    assert [fact["id"] for fact in told["facts"]] == told["decision"]["facts"]


def test_why_of_an_unknown_name_gives_the_nearest_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["plan", "nowhere.yaml", "--why", "learning_rte"]) == 2
    captured = capsys.readouterr()
    assert "Did you mean learning_rate?" in captured.err
    assert captured.out == ""


def test_inspect_colours_what_is_trained_on(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", *options, "--rows", "1", "--json"]) == 0
    inspection = json.loads(capsys.readouterr().out)
    (example,) = inspection["data"]["examples"]
    trained = "".join(part["text"] for part in example if part["trained"])
    assert trained.startswith("the answer is")
    assert trained.endswith("<|im_end|>")
    assert run(["inspect", *options]) == 0
    assert "carry the loss" in capsys.readouterr().out


def test_generate_reads_a_prompt_a_file_and_standard_input(
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run(["train", *options, "--json"]) == 0
    folder = json.loads(capsys.readouterr().out)["run"]
    common = ["generate", folder, "--max-new-tokens", "3", "--json"]
    assert run([*common, "the question"]) == 0
    assert [one["prompt"] for one in json.loads(capsys.readouterr().out)] == ["the question"]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n\ntwo\n")
    assert run([*common, "--file", str(prompts)]) == 0
    assert [one["prompt"] for one in json.loads(capsys.readouterr().out)] == ["one", "two"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.setattr("sys.stdin.read", lambda: "from a pipe\n", raising=False)
    assert run([*common, "-"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["prompt"] == "from a pipe"


Bad = Callable[[Path, Path], list[str]]


def _config(folder: Path, text: str) -> str:
    path = folder / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _rows(folder: Path, text: str) -> str:
    path = folder / "bad.jsonl"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _with_rows(text: str) -> Bad:
    return lambda folder, model: ["--model", str(model), "--dataset", _rows(folder, text)]


def _with_config(text: str) -> Bad:
    return lambda folder, model: [
        _config(folder, f"model: {model}\ndataset: {write_rows(folder / 'r.jsonl')}\n{text}\n")
    ]


BAD: dict[str, tuple[int, str, Bad]] = {
    "no such config": (2, "nowhere.yaml", lambda f, m: [str(f / "nowhere.yaml")]),
    "a typo in a key": (2, "learning_rate", _with_config("learning_rte: 1e-4")),
    "the line is named": (2, "bad.yaml:3", _with_config("learning_rte: 1e-4")),
    "out of domain": (2, "learning_rate", _with_config("learning_rate: -1")),
    "not a number": (2, "learning_rate", _with_config("learning_rate: .nan")),
    "a wrong unit": (2, "memory_limit", _with_config("memory_limit: 6 bananas")),
    "broken yaml": (2, "bad.yaml", _with_config("a: [1")),
    "an unknown option": (2, "--learning-rate?", lambda f, m: ["--learning-rat", "1"]),
    "qlora": (2, "qlora", _with_config("method: qlora")),
    "both warmups": (2, "warmup_ratio", _with_config("warmup_steps: 3\nwarmup_ratio: 0.1")),
    "three batch sizes": (
        2,
        "accumulation",
        _with_config(
            "global_batch_size: 16\nper_device_train_batch_size: 4\ngradient_accumulation_steps: 3"
        ),
    ),
    "no model given": (2, "model", lambda f, m: ["--dataset", str(write_rows(f / "r.jsonl"))]),
    "no such model": (
        2,
        "no",
        lambda f, m: ["--model", "./nowhere", "--dataset", str(write_rows(f / "r.jsonl"))],
    ),
    "a folder without a model": (
        2,
        "config.json",
        lambda f, m: ["--model", str(f), "--dataset", str(write_rows(f / "r.jsonl"))],
    ),
    "no such dataset": (
        2,
        "nowhere",
        lambda f, m: ["--model", str(m), "--dataset", "./nowhere.jsonl"],
    ),
    "a device that is not there": (2, "cuda:7", _with_config("device: cuda:7")),
    "an unknown pad token": (2, "no-such-token", _with_config("pad_token: no-such-token")),
    "longer than the model": (2, "256", _with_config("max_length: 4096")),
    "empty data": (3, "bad.jsonl", _with_rows("")),
    "no known format": (3, "columns", _with_rows('{"a": 1}\n{"a": 2}\n')),
    "a broken row": (3, "bad.jsonl:2", _with_rows('{"text": "a fox"}\n{"text": \n')),
    "an empty completion": (3, "bad.jsonl:1", _with_rows('{"prompt": "a", "completion": ""}\n')),
    "too long and strict": (
        3,
        "max_length",
        lambda f, m: [*_with_config("max_length: 8\ntruncation_mode: error")(f, m)],
    ),
    "nothing fits": (5, "1.0 MiB", _with_config("memory_limit: 1MiB")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_short_paragraph_and_its_code(
    name: str, tmp_path: Path, tiny_llama_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, named, arguments = BAD[name]
    output = tmp_path / "out"
    given = arguments(tmp_path, tiny_llama_folder)
    assert (
        run(
            ["train", *given, "--output-dir", str(output), "--device", "cpu"][
                : None if "cuda" not in named else -2
            ]
        )
        == code
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    _, paragraph = captured.err.split("Error: ")
    assert named in paragraph
    assert "Traceback" not in captured.err
    assert len(paragraph) < 900
    assert not output.exists()


def test_a_bug_is_told_and_debug_shows_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("trimtab.hyperparameters.schema.json_schema", broken)
    assert run(["schema"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert run(["schema", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_unknown_command_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trian"]) == 2
    assert "trian" in capsys.readouterr().err
    assert run([]) == 0
    assert "train" in capsys.readouterr().out


def test_explain_one_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "learning_rate"]) == 0
    assert "auto" in capsys.readouterr().out
    assert run(["explain"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in catalogue())
    assert run(["explain", "learning_rte"]) == 2
    assert "learning_rate" in capsys.readouterr().err


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert "learning_rate" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["explain"], ["explain", "learning_rate"], ["schema"]],
)
def test_words_need_no_torch(arguments: list[str]) -> None:
    assert _in_a_fresh_process(arguments)


def _in_a_fresh_process(arguments: list[str]) -> str:
    """What the command prints; no heavy library may be loaded by its end."""
    code = (
        "import sys; from trimtab.cli.app import run; code = run(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ctrl_c_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trimtab.plan", interrupted)
    assert run(["plan", "--model", "m", "--dataset", "d"]) == 130
    assert capsys.readouterr().err.endswith("Aborted.\n")


def test_a_wrong_option_is_named_with_its_commands_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["generate", "runs/some", "hi", "--max-new-tokens", "0"]) == 2
    told = capsys.readouterr().err
    assert "--max-new-tokens" in told and told.endswith("Try: trimtab generate --help\n")


@pytest.mark.parametrize(
    ("command", "option", "commands"),
    [("train", "--quick", "trimtab plan"), ("plan", "--budget", "trimtab tune")],
)
def test_an_option_of_another_command_is_told_with_it(
    capsys: pytest.CaptureFixture[str], command: str, option: str, commands: str
) -> None:
    assert run([command, option, "3"]) == 2
    told = capsys.readouterr().err
    assert f"there is no option {option}." in told
    assert commands in told


def test_an_option_of_no_command_is_told_with_the_nearest_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["train", "--learning-rat", "3"]) == 2
    assert "Did you mean --learning-rate" in capsys.readouterr().err


def test_a_run_is_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.json").write_text("{}")
    assert run(["train", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"trimtab resume {tmp_path}" in told
    assert f"{tmp_path / 'config.yaml'}" in told
