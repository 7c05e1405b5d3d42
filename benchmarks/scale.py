"""Write docs/scale.md: predictions for 1B–70B over 1–1,024 devices, and how near they come.

    python benchmarks/scale.py            writes the page
    python benchmarks/scale.py --fit      fits the two constants to every second published row

Nothing is measured and nothing is fetched: models are their config.json, devices their datasheets.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parent))

from published_speeds import SOURCES, Row, published_rows

from trimtab.cli.forecast_screen import split_text
from trimtab.errors import DoesNotFit
from trimtab.hyperparameters.layers import resolve
from trimtab.models.light_description import describe_from_config
from trimtab.models.source import ModelSource
from trimtab.planning import step_time
from trimtab.planning.device_sheets import DEVICE_SHEETS, datasheet_facts
from trimtab.planning.effort import QUICK
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.forecast import Forecast, forecast
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.planner import make_plan
from trimtab.planning.questions import TrainingRowsQuestion
from trimtab.planning.rules.memory import memory_arithmetic
from trimtab.planning.rules.shape import linear_modules, num_adapter_weights
from trimtab.planning.step_time import PredictedTime, Split, datasheet_rates
from trimtab.planning.timing import Work

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
NEAR = 0.25
LORA_R = 8


def llama(hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int) -> dict[str, Any]:
    """What a config.json says of a model without tied embeddings."""
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
    }


CONFIGS = {
    "llama-1b": llama(2048, 8192, 16, 32, 8, 128256) | {"tie_word_embeddings": True},
    "llama-3b": llama(3072, 8192, 28, 24, 8, 128256) | {"tie_word_embeddings": True},
    "llama-8b": llama(4096, 14336, 32, 32, 8, 128256),
    "llama-15b": llama(5120, 17920, 40, 40, 8, 128256),
    "qwen-32b": llama(5120, 27648, 64, 40, 8, 152064),
    "llama-70b": llama(8192, 28672, 80, 64, 8, 128256),
    "llama-2-13b": llama(5120, 13824, 40, 40, 40, 32000),
    "llama-2-70b": llama(8192, 28672, 80, 64, 8, 32000),
}
MPT = {
    "1b": (2048, 24),
    "3b": (2560, 32),
    "7b": (4096, 32),
    "13b": (5120, 40),
    "30b": (7168, 48),
    "70b": (8192, 80),
}
"""Hidden size and layers of llm-foundry's models (scripts/train/yamls/pretrain)."""
MPT_VOCAB_SIZE = 50368


def model_facts(name: str) -> dict[str, Any]:
    """`model.*` as the planner knows them."""
    if name.startswith("mpt-"):
        return _mpt(*MPT[name.removeprefix("mpt-")])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
        described = describe_from_config(ModelSource(name, Path(folder)))
    return {
        "model.num_parameters": described.num_parameters,
        "model.head_is_plain": described.head_is_plain,
        "model.num_layers": described.num_layers,
        "model.hidden_size": described.hidden_size,
        "model.vocab_size": described.vocab_size,
        "model.linear_modules": [list(module) for module in described.linear_modules],
    }


def _mpt(hidden: int, layers: int) -> dict[str, Any]:
    modules = [
        ["Wqkv", hidden, 3 * hidden, layers],
        ["out_proj", hidden, hidden, layers],
        ["up_proj", hidden, 4 * hidden, layers],
        ["down_proj", 4 * hidden, hidden, layers],
    ]
    return {
        "model.num_parameters": 12 * layers * hidden**2 + MPT_VOCAB_SIZE * hidden,
        "model.head_is_plain": True,
        "model.num_layers": layers,
        "model.hidden_size": hidden,
        "model.vocab_size": MPT_VOCAB_SIZE,
        "model.linear_modules": modules,
    }


def predicted_time(row: Row, facts: Facts) -> PredictedTime:
    num_trained = facts.integer("model.num_parameters")
    if row.method == "lora":
        num_trained = num_adapter_weights(linear_modules(facts), LORA_R)
    split = Split(row.num_devices, row.num_devices)
    memory = memory_arithmetic(
        facts,
        method=row.method,
        precision="bf16",
        optim="adamw",
        num_trained=num_trained,
        num_shards=split.num_shards,
    )
    work = Work(facts, row.method, "bf16", num_trained)
    return PredictedTime(work, memory, datasheet_rates(facts, work), split)


def facts_of(row: Row) -> Facts:
    sheet = DEVICE_SHEETS[row.device]
    sheet = replace(
        sheet,
        memory_bytes_per_s=row.memory_bytes_per_s or sheet.memory_bytes_per_s,
        devices_per_node=row.devices_per_node or sheet.devices_per_node,
    )
    known = Facts().adding(datasheet_facts(sheet))
    return known.adding(Fact(id, value) for id, value in model_facts(row.model).items())


def size_of(row: Row) -> MicroBatchSize:
    tokens = row.num_rows * row.length
    return MicroBatchSize(tokens, tokens, tokens * row.length)


def predicted_tokens_per_s(row: Row) -> float:
    time = predicted_time(row, facts_of(row))
    update_s = time.update_s(size_of(row), row.accumulation, row.checkpointing)
    return row.accumulation * row.num_rows * row.length / update_s


def is_for_fitting(index: int, row: Row) -> bool:
    """Every second row of the two long tables."""
    return index % 2 == 0 and row.source.name.startswith(("llm-foundry", "torchtitan"))


def fit() -> None:
    """Least squares of the logarithms, whose outliers count linearly."""
    from scipy.optimize import least_squares

    rows = [row for index, row in enumerate(published_rows()) if is_for_fitting(index, row)]

    def residuals(constants: Sequence[float]) -> list[float]:
        step_time.MATMUL_SHARE, step_time.TRAFFIC = constants
        return [math.log(predicted_tokens_per_s(row) / row.tokens_per_s) for row in rows]

    start = [step_time.MATMUL_SHARE, step_time.TRAFFIC]
    found = least_squares(residuals, start, loss="soft_l1", f_scale=0.1)
    print(found.x)


def error(row: Row) -> float:
    return predicted_tokens_per_s(row) / row.tokens_per_s - 1


DEVICE_COUNTS = (1, 8, 64, 256, 1024)
MODELS = ("llama-1b", "llama-3b", "llama-8b", "qwen-32b", "llama-70b")
LENGTH = 4096
NUM_ROWS = 102_400
GLOBAL_BATCH_SIZE = 1024


def rows_facts(question: TrainingRowsQuestion) -> dict[str, Any]:
    """Rows of one length, all of whose tokens are trained on, and none held out."""
    num_tokens = NUM_ROWS * LENGTH
    zeros = (
        "num_truncated num_tokens_cut num_trainable_tokens_cut num_rows_losing_targets num_dropped "
        "num_left_without_target num_copies_removed eval_num_examples eval_num_tokens "
        "eval_num_truncated eval_num_dropped"
    )
    rows: dict[str, Any] = {
        "key": question.key,
        "num_examples": NUM_ROWS,
        "num_rows": NUM_ROWS,
        "num_tokens": num_tokens,
        "num_trainable_tokens": num_tokens,
        "length_mean": LENGTH,
        "length_max": LENGTH,
        "trainable_length_max": LENGTH,
        **dict.fromkeys(zeros.split(), 0),
    }
    return {f"rows.{name}": value for name, value in rows.items()}


DATA = {
    "data.num_rows": NUM_ROWS,
    "data.num_bad_rows": 0,
    "data.num_duplicate_rows": 0,
    "data.format": "text",
    "data.format_because": "one column",
    "data.num_tokens": NUM_ROWS * LENGTH,
    "data.num_trainable_tokens": NUM_ROWS * LENGTH,
    "data.length_mean": LENGTH,
    "data.length_max": LENGTH,
    "data.length_quantiles": [LENGTH] * 201,
    "data.templated": False,
    "data.template_because": "text",
}
TOKENIZER = {
    "model.architecture": "llama",
    "model.max_position_embeddings": LENGTH,
    "model.num_embedding_parameters": 0,
    "model.head_is_tied": False,
    "model.packing_refusal": None,
    "model.pad_token": "<pad>",
    "model.pad_token_id": 0,
    "model.pad_token_because": "",
    "model.chat_template": False,
}


def forecast_for(model: str, method: str, device: str, num_devices: int) -> Forecast:
    """Raises DoesNotFit."""
    resolved = resolve(
        values={
            "model": model,
            "dataset": "rows",
            "method": method,
            "max_length": LENGTH,
            "eval_dataset": "none",
            "global_batch_size": GLOBAL_BATCH_SIZE,
            "num_train_epochs": 1,
        }
    )
    facts = Facts().adding(datasheet_facts(DEVICE_SHEETS[device]))
    known = model_facts(model) | TOKENIZER | DATA
    facts = facts.adding(Fact(id, value) for id, value in known.items())
    (question,) = cast(
        tuple[TrainingRowsQuestion],
        make_plan(resolved, facts, output_dir="run", num_ranks=num_devices, effort=QUICK),
    )
    facts = facts.adding(Fact(id, value) for id, value in rows_facts(question).items())
    return forecast(resolved, facts, output_dir="run", num_devices=num_devices)


def splits_table(method: str, device: str = "h100") -> str:
    lines = [
        "| model | devices | split | batch | checkpointing | memory | an update | waiting | "
        "tokens/s a device |",
        "| --- | --: | --- | --: | --- | --: | --: | --: | --: |",
    ]
    for model in MODELS:
        for count in DEVICE_COUNTS:
            lines.append(_split_line(model, method, device, count))
    return "\n".join(lines)


def _split_line(model: str, method: str, device: str, count: int) -> str:
    try:
        made = forecast_for(model, method, device, count)
    except DoesNotFit:
        return f"| {model} | {count:,} | does not fit | | | | | | |"
    settings, terms = made.plan.settings(), made.terms
    memory = (made.plan.predictions.worst_case_memory_bytes or 0) / 2**30
    micro, accumulation = (
        settings.per_device_train_batch_size,
        settings.gradient_accumulation_steps,
    )
    return (
        f"| {model} | {count:,} | {split_text(made.chosen.split)} | {micro} × {accumulation} | "
        f"{settings.activation_checkpointing} | {memory:.1f} GiB | {terms.update_s:.3g} s | "
        f"{terms.waiting_s / terms.update_s:.0%} | {made.chosen.tokens_per_s or 0:,.0f} |"
    )


def published_table() -> str:
    """The rows that no constant was fitted to; what is further off than a quarter is bold."""
    lines = [
        "| source | device | model | tokens a row | devices | batch | checkpointing | published | "
        "predicted | off by |",
        "| --- | --- | --- | --: | --: | --: | --- | --: | --: | --: |",
    ]
    for index, row in enumerate(published_rows()):
        if is_for_fitting(index, row):
            continue
        off = error(row)
        told = f"{off:+.0%}" if abs(off) <= NEAR else f"**{off:+.0%}**"
        model = row.model if row.method == "full" else f"{row.model}, LoRA"
        lines.append(
            f"| {row.source.name} | {row.device} | {model} | {row.length:,} | "
            f"{row.num_devices:,} | {row.num_rows} × {row.accumulation} | {row.checkpointing} | "
            f"{row.tokens_per_s:,.0f} | {predicted_tokens_per_s(row):,.0f} | {told} |"
        )
    return "\n".join(lines)


def summary_table() -> str:
    lines = [
        "| rows | number | within a quarter | mean size of the error | median error |",
        "| --- | --: | --: | --: | --: |",
    ]
    rows = list(enumerate(published_rows()))
    fitted = [row for index, row in rows if is_for_fitting(index, row)]
    scored = [row for index, row in rows if not is_for_fitting(index, row)]
    groups = {"fitted to": fitted, "scored": scored}
    for source in SOURCES:
        groups[f"scored, {source.name}"] = [row for row in scored if row.source is source]
    for name, group in groups.items():
        off = [error(row) for row in group]
        num_near = sum(abs(each) <= NEAR for each in off)
        mean = statistics.mean(abs(each) for each in off)
        lines.append(
            f"| {name} | {len(off)} | {num_near} | {mean:.0%} | {statistics.median(off):+.0%} |"
        )
    return "\n".join(lines)


def sources_list() -> str:
    return "\n".join(f"- **{one.name}**: {one.where}. {one.note}" for one in SOURCES)


def devices_table() -> str:
    lines = [
        "| device | memory | bf16 | fp16 | fp32 | matmul reaches | memory/s | in the node | "
        "between nodes | a node | source |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |",
    ]
    for name, sheet in DEVICE_SHEETS.items():
        peaks = " | ".join(
            f"{sheet.flops_per_s[each] / 1e12:g}" if each in sheet.flops_per_s else "–"
            for each in ("bf16", "fp16", "fp32")
        )
        reached = f"{sheet.matmul_share:.0%}" + ("" if sheet.matmul_flops_per_s else "?")
        lines.append(
            f"| `{name}` | {sheet.memory_bytes / 2**30:g} GiB | {peaks} | {reached} | "
            f"{sheet.memory_bytes_per_s / 1e12:g} TB | {sheet.intra_node_bytes_per_s / 1e9:g} GB/s "
            f"| {sheet.inter_node_bytes_per_s / 1e9:g} GB/s | {sheet.devices_per_node} | "
            f"{sheet.source} |"
        )
    return "\n".join(lines)


def constants_line() -> str:
    return (
        f"`MATMUL_SHARE` = {step_time.MATMUL_SHARE:g} and `TRAFFIC` = {step_time.TRAFFIC:g} are "
        "fitted; the rest is counted, from a datasheet, or an assumption that is named."
    )


SECTIONS = {
    "full": lambda: splits_table("full"),
    "lora": lambda: splits_table("lora"),
    "published": published_table,
    "summary": summary_table,
    "sources": sources_list,
    "devices": devices_table,
    "constants": constants_line,
}


def rendered(page: str) -> str:
    """The page with every generated section as it is now."""
    for name, section in SECTIONS.items():
        start, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
        before, mark, rest = page.partition(start)
        assert mark, f"the page has no section {name}"
        after = rest[rest.index(end) :]
        page = f"{before}{start}{section()}\n{after}"
    return page


if __name__ == "__main__":
    if "--fit" in sys.argv[1:]:
        fit()
    else:
        PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
