"""Results in other programs' formats: written, read back, and saying the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from support.runs import tiny_config
from support.tiny import CHATML, save_tiny_model, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import trimtab
from trimtab.cli.app import run
from trimtab.engine.observer import Silent
from trimtab.errors import ConfigError
from trimtab.interop import gguf_writing, results
from trimtab.interop.gguf_writing import pre_tokenizer_name, refuse_unmappable, write_gguf
from trimtab.interop.hub import push_to_hub
from trimtab.interop.model_card import card
from trimtab.interop.results import Comparison, export_result
from trimtab.models.gguf import load_gguf
from trimtab.runs.folder import open_run
from trimtab.workflow.records import read_plan

# peft asks a model by the older of transformers' two names.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA run, with a learning rate that its answers can be told from the base's by."""
    folder = tmp_path_factory.mktemp("exports")
    model = save_tiny_model(folder / "model")
    config = tiny_config(folder, model, max_steps=2, report_samples=0, learning_rate=0.05)
    return Path(trimtab.train({**config, "method": "lora", "eval_strategy": "no"}).run)


@pytest.mark.parametrize("kind", ["merged", "gguf", "ollama"])
def test_a_result_is_written_and_answers_as_the_run_does(
    kind: results.Kind, finished_run: Path, tmp_path: Path
) -> None:
    done = export_result(finished_run, kind, tmp_path / "out", Silent())
    assert done.comparison.num_same_answers == done.comparison.num_prompts == 20
    assert done.comparison.max_logit_difference is not None
    assert done.comparison.max_logit_difference < 0.05
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "license:" in card
    assert "20 of 20 prompts have the same" in card
    assert str(tmp_path) not in card
    names = {path.suffix or path.name for path in (tmp_path / "out").iterdir()}
    assert {"merged": ".safetensors", "gguf": ".gguf", "ollama": "Modelfile"}[kind] in names


@pytest.mark.parametrize("kind", ["merged", "gguf", "ollama"])
def test_an_export_stops_where_the_result_does(
    kind: results.Kind, finished_run: Path, tmp_path: Path
) -> None:
    """An adapter's folder holds where generation ends, which its base need not have."""
    folder = shutil.copytree(finished_run, tmp_path / "run")
    file = folder / "adapter" / "generation_config.json"
    ends = {**json.loads(file.read_text(encoding="utf-8")), "eos_token_id": [4, 2]}
    file.write_text(json.dumps(ends), encoding="utf-8")
    out = tmp_path / "out"
    export_result(folder, kind, out, Silent())
    exported = json.loads((out / "generation_config.json").read_text(encoding="utf-8"))
    assert exported["eos_token_id"] == [4, 2]
    if kind == "ollama":
        text = (out / "Modelfile").read_text(encoding="utf-8")
        assert 'PARAMETER stop "<|im_end|>"\nPARAMETER stop "</s>"\n' in text


@pytest.mark.parametrize("is_local", [True, False])
def test_a_card_names_a_local_model_and_rows_by_their_last_part(
    is_local: bool, finished_run: Path
) -> None:
    folder = open_run(finished_run)
    plan = read_plan(folder)
    named = {"model": "models/tiny", "dataset": "some/rows"}
    decisions = [replace(one, value=named.get(one.name, one.value)) for one in plan.decisions]
    paths = {name: f"/somewhere/{value}" for name, value in named.items()} if is_local else {}
    text = card(folder, replace(plan, decisions=tuple(decisions), paths=paths), "merged", "f16", "")
    base, rows = ("tiny", "rows") if is_local else ("models/tiny", "some/rows")
    assert f"base_model: {base}\n" in text
    assert f"(lora) on {rows}, as" in text


def test_merged_weights_are_the_base_with_the_adapter(finished_run: Path, tmp_path: Path) -> None:
    export_result(finished_run, "merged", tmp_path / "out", Silent())
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(finished_run.parent / "model", dtype=torch.float32)
    changed = [
        name
        for name, weights in merged.state_dict().items()
        if not torch.equal(weights, base.state_dict()[name])
    ]
    assert changed
    assert all("_proj" in name for name in changed)
    assert merged.config.use_cache


def test_an_export_that_answers_otherwise_says_so(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(file: Path) -> object:
        model, tokenizer = load_gguf(file)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(-1)
        return model, tokenizer

    monkeypatch.setattr(results, "load_gguf", damaged)
    done = export_result(finished_run, "gguf", tmp_path / "out", Silent())
    assert done.comparison.num_same_answers is not None
    assert done.comparison.num_same_answers < 20
    assert len(done.comparison.parting_gaps) == 20 - done.comparison.num_same_answers
    told = f"{20 - done.comparison.num_same_answers} do not"
    assert told in done.comparison.sentence
    assert told in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("quantization", ["f32", "f16", "bf16", "q8_0"])
def test_an_architecture_reads_back_as_it_was(
    architecture: str, quantization: results.Quantization, tmp_path: Path
) -> None:
    import gguf
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    if architecture == "qwen3":
        # transformers reads a head's size of 128 whatever the file says.
        shape = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "head_dim": 128}
        model = Qwen3ForCausalLM(
            Qwen3Config(**shape, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
        )
    else:
        model = tiny_model(architecture)
    tokenizer = tiny_tokenizer()
    file = tmp_path / "model.gguf"
    write_gguf(model, tokenizer, file, quantization=quantization, name="tiny", end_token_id=4)
    found, its_tokenizer = load_gguf(file)
    text = "the quick brown fox asks: 1 + 23?<|im_end|>"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert its_tokenizer(text).input_ids == ids[0].tolist()
    assert its_tokenizer.chat_template == CHATML
    assert (its_tokenizer.eos_token, its_tokenizer.bos_token) == ("<|im_end|>", "<s>")
    with torch.no_grad():
        difference = (found(ids).logits - model(ids).logits).abs().max()
    assert difference < {"f32": 1e-5, "f16": 1e-3, "bf16": 2e-2, "q8_0": 2e-2}[quantization]
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert kinds == {"F32", quantization.upper()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_format_that_holds_every_weight_is_told(dtype: torch.dtype, tmp_path: Path) -> None:
    """Weights of bf16 are the same in a file of BF16, to the last bit; F16 loses small ones."""
    model = tiny_model("llama").to(dtype).to(torch.float32)
    exact = write_gguf(
        model,
        tiny_tokenizer(),
        tmp_path / "model.gguf",
        quantization="bf16",
        name="tiny",
        end_token_id=4,
    )
    kinds = {torch.bfloat16: {"bf16"}, torch.float16: {"f16"}, torch.float32: set()}
    assert exact == kinds[dtype]
    found, _ = load_gguf(tmp_path / "model.gguf")
    same = all(
        torch.equal(weights, found.state_dict()[name])
        for name, weights in model.state_dict().items()
    )
    assert same == (dtype == torch.bfloat16)


@pytest.mark.parametrize(
    ("quantization", "exact", "told"),
    [
        ("f16", {"f16"}, None),
        ("bf16", {"bf16"}, None),
        ("f32", set(), None),
        ("f16", {"bf16"}, "F16 rounds some weights; --quantization bf16 holds"),
        ("bf16", set(), "--quantization f32 holds all of them exactly, in twice the bytes of F16"),
        ("q8_0", {"bf16"}, "Q8_0 rounds some weights; --quantization bf16"),
    ],
)
def test_a_format_that_rounds_names_the_one_that_does_not(
    quantization: results.Quantization, exact: set[results.Quantization], told: str | None
) -> None:
    notes = results.rounding_note(quantization, frozenset(exact))
    assert (told is None) == (notes == ())
    assert all(told in note for note in notes if told is not None)


def test_f32_holds_an_adapter_merged_in_fp32(finished_run: Path, tmp_path: Path) -> None:
    done = export_result(finished_run, "gguf", tmp_path / "out", quantization="f32")
    assert done.notes == ()
    assert done.comparison.num_same_answers == 20
    assert done.comparison.max_logit_difference is not None
    assert done.comparison.max_logit_difference < 1e-4
    rounded = export_result(finished_run, "gguf", tmp_path / "f16", quantization="f16")
    assert "--quantization f32" in rounded.notes[0]


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3_text", "mistral"])
def test_what_gguf_would_not_hold_is_refused_by_name(architecture: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=architecture):
        refuse_unmappable(tiny_model(architecture), tiny_tokenizer())


def test_scaled_positions_are_refused() -> None:
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    )
    with pytest.raises(ConfigError, match="linear"):
        refuse_unmappable(LlamaForCausalLM(config), tiny_tokenizer())


def test_a_refusal_leaves_nothing_behind(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(gguf_writing.ARCHITECTURES, "llama")
    with pytest.raises(ConfigError, match="architecture llama cannot be written as GGUF"):
        export_result(finished_run, "gguf", tmp_path / "out", Silent())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ([{"type": "ByteLevel", "use_regex": True}], "gpt-2"),
        (
            [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}],
            "smollm",
        ),
        ([{"type": "Split", "pattern": {"Regex": "odd"}}, {"type": "ByteLevel"}], "default"),
    ],
)
def test_how_text_is_cut_has_llama_cpps_name(parts: list[dict[str, object]], name: str) -> None:
    description = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}}
    assert pre_tokenizer_name(description) == name


def test_a_dry_run_lists_what_would_be_sent_and_asks_nobody(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["export", str(finished_run), "--to", "merged", "--output", str(out)]
    assert run([*command, "--push-to-hub", "me/mine", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["num_same_answers"] == 20
    assert told["upload"] == {
        path.name: path.stat().st_size for path in out.iterdir() if path.is_file()
    }
    assert run(command) == 2
    assert "there already" in capsys.readouterr().err


def test_the_hub_out_of_reach_is_told(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("a card", encoding="utf-8")
    planned = push_to_hub(tmp_path, "me/mine", dry_run=True)
    assert (planned.files, planned.address) == ((("README.md", 6),), None)
    with pytest.raises(ConfigError, match="no repository's name"):
        push_to_hub(tmp_path, "a/b/c", dry_run=True)
    with pytest.raises(ConfigError, match="the Hub did not take it"):
        push_to_hub(tmp_path, "me/mine")


def test_all_that_the_hub_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise ValueError("Invalid metadata in README.md.\n- base_model is no model's name.\n")

    monkeypatch.setattr(HfApi, "create_repo", refuses)
    with pytest.raises(ConfigError, match=r"README.md.\n- base_model is no model's name. Log in"):
        push_to_hub(tmp_path, "me/mine")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--to", "onnx"], "It takes merged, gguf"),
        (["--to", "gguf", "--quantization", "q2"], "it takes f32, f16, bf16, q8_0"),
        (["--to", "gguf"], "a result is exported from one run"),
        (["nowhere", "--to", "gguf"], "no run folder"),
        (["--to", "trl"], "nothing to go by"),
        (["nowhere.json", "--to", "trl"], "cannot be read"),
    ],
)
def test_a_wrong_command_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("source", [".", "plan.json"])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--learning-rate", "2e-4", "--packing"], "--learning-rate, --packing would change"),
        (["another"], "one run, plan or CONFIG is exported, and 2 came"),
        (["--learning-rat", "2e-4"], "Did you mean --learning-rate"),
    ],
)
def test_a_plan_that_is_made_takes_no_options(
    source: str,
    arguments: list[str],
    told: str,
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["export", str(finished_run / source), "--to", "trl"]
    assert run([*command, "--output", str(tmp_path / "out"), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_runs_plan_a_plans_json_and_a_config_export_alike(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [str(finished_run), str(finished_run / "plan.json")]
    texts = []
    for number, source in enumerate(sources):
        out = tmp_path / str(number)
        assert run(["export", source, "--to", "trl", "--output", str(out), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        texts.append(Path(told["path"]).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert "max_steps: 2\n" in texts[0]
    out = tmp_path / "config"
    file = tmp_path / "config.yaml"
    file.write_text(
        f"model: {finished_run.parent / 'model'}\ndataset: {finished_run.parent / 'rows.jsonl'}\n",
        encoding="utf-8",
    )
    command = ["export", str(file), "--to", "axolotl", "--quick", "--seed", "9"]
    assert run([*command, "--output", str(out)]) == 0
    assert "seed: 9\n" in (out / "axolotl.yaml").read_text(encoding="utf-8")


def test_the_tokenizer_of_an_export_loads_by_itself(finished_run: Path, tmp_path: Path) -> None:
    export_result(finished_run, "merged", tmp_path / "out", Silent())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == CHATML


def test_where_answers_part_is_told() -> None:
    near_tie = Comparison(20, 32, 0.065, 19, (0.0052,)).sentence
    assert "19 of 20 prompts have the same 32 greedy tokens" in near_tie
    assert "1 does not, parting where the run's two best logits are 0.0052 apart" in near_tie
    assert "are 0.1 to 0.3 apart" in Comparison(20, 32, 1.5, 17, (0.1, 0.3, 0.2)).sentence


def test_every_other_answer_has_its_gap(finished_run: Path, tmp_path: Path) -> None:
    done = export_result(finished_run, "gguf", tmp_path / "out", quantization="q8_0").comparison
    assert done.num_same_answers is not None
    assert len(done.parting_gaps) == 20 - done.num_same_answers
    assert all(0 <= gap < 2 * (done.max_logit_difference or 0) for gap in done.parting_gaps)
