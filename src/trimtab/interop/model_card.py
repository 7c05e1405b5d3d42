"""README.md beside an exported result: what it is, from what, by which plan, how well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from trimtab.hyperparameters.writing import yaml_value
from trimtab.planning.plan import Plan
from trimtab.runs.folder import RunFolder
from trimtab.runs.records import DataRecord, RunSummary

_SHOWN: Final = (
    "method",
    "max_length",
    "global_batch_size",
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "precision",
    "lora_r",
    "lora_alpha",
    "seed",
)


def card(run: RunFolder, plan: Plan, kind: str, quantization: str, comparison: str) -> str:
    """The card's text, from the run folder alone.

    The licence is left for the user to fill in: neither the base's nor the data's is known here.
    """
    values = {one.name: one for one in plan.decisions}
    summary = RunSummary.from_json(_read(run.summary_json))
    data = DataRecord.from_json(_read(run.data_json))
    form = "safetensors" if kind == "merged" else f"GGUF {quantization.upper()}"
    base = _short(plan, "model")
    front = {
        "base_model": base,
        "library_name": "transformers" if kind == "merged" else "gguf",
        "pipeline_tag": "text-generation",
        "tags": ["trimtab", str(values["method"].value)],
    }
    lines = ["---", *(f"{name}: {yaml_value(value)}" for name, value in front.items())]
    lines += ["# Fill in, after the licences of the base model and of the rows:"]
    lines += ["license: other", "license_name: unknown", "---", ""]
    lines += [f"# {base}, fine-tuned", ""]
    lines += [
        f"{base} after {summary.num_steps:,} weight updates "
        f"({values['method'].value}) on {_short(plan, 'dataset')}, as {form}. "
        f"{comparison}",
        "",
    ]
    lines += ["## Data", ""]
    lines += [
        f"{data.num_rows:,} rows ({data.format}), of which {data.num_train_examples:,} were "
        f"trained on and {data.num_eval_examples:,} held out; {data.num_tokens:,} tokens, of which "
        f"{data.num_trainable_tokens:,} carried the loss. {data.num_truncated:,} rows were cut.",
        "",
    ]
    lines += ["## Results", "", *_results(summary), ""]
    lines += ["## Plan", "", "| hyperparameter | value | origin |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {_cell(values[name].value)} | {values[name].origin} |"
        for name in _SHOWN
        if name in values
    ]
    lines += ["", "## Licence", ""]
    lines += ["Not filled in. Check the licences of the base model and of the rows first.", ""]
    return "\n".join(lines)


def _results(summary: RunSummary) -> list[str]:
    rows = [
        ("held-out loss before (nats a token)", summary.base_eval_loss),
        ("held-out loss after (nats a token)", summary.eval_loss),
        ("training loss, over all updates", summary.train_loss),
    ]
    return [
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value:.4f} |" for name, value in rows if value is not None),
        f"| updates | {summary.num_steps:,} |",
        f"| tokens | {summary.num_tokens:,} |",
    ]


def _cell(value: Any) -> str:
    return yaml_value(value).replace("|", "\\|")


def _short(plan: Plan, name: str) -> str:
    """A local path says more of a machine than of the model: its last part."""
    path = Path(plan.paths.get(name, str(plan.decision(name).value)))
    return path.name if path.is_absolute() else path.as_posix()


def _read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
