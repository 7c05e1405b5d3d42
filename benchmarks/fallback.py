"""Does a run that overflows in fp16 end where the safer format would have ended?

    python benchmarks/fallback.py run --model DIR --data gsm8k_train.jsonl --out DIR \
        --method lora --drive activations [--no-bf16]
    python benchmarks/fallback.py table DIR/*.json

The model is a real one, driven to overflow in real fp16 arithmetic, and computes the same function
as before in the other formats:
- `activations`: one layer's up projection is multiplied and its down projection divided by one
  number, so that the products between them pass 65,504 first in the middle of the run: the loss is
  no number. LoRA on attention alone, since adapters beside rescaled weights would learn at another
  rate.
- `gradients`: the gradient at the logits is multiplied by 2²⁴ (as a loss in other units would
  have it), which overflows at every loss scale; clipping takes it out again elsewhere.

`--no-bf16` declares bf16 absent, so that fp32 is next. The run is then made once more in the format
that it ended in, from the start, and both held-out losses are compared. fp16 products are
accumulated in fp32 and rounded, as GPUs do it: a CPU without fp16 units takes a second a token.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.half_products import HalfProductsInFp32

import trimtab
from trimtab.engine import step
from trimtab.engine.observer import Silent
from trimtab.planning.effort import QUICK
from trimtab.probes import device
from trimtab.runs.records import EventRecord, UpdateRecord
from trimtab.workflow.planning import plan_run, resolve_config

HALF_MAX = 65_504.0
GRADIENT_FACTOR = 2.0**24
DATA_SEED = 42
RATES = {"lora": 3.5e-4, "full": 3.5e-5}
WARMUP_STEPS = 1


class Telling(Silent):
    """Prints updates and events, and keeps the events."""

    def __init__(self) -> None:
        self.events: list[EventRecord] = []

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        print(f"update {record.step}: loss {record.loss:.4f}, {record.seconds:.1f} s", flush=True)

    def happened(self, event: EventRecord) -> None:
        self.events.append(event)
        print(f"{event.event} at {event.step}: {event.details.get('because', '')}", flush=True)


def prepare(arguments: argparse.Namespace, out: Path) -> tuple[list[str], list[str]]:
    """Write training and held-out rows, and return their texts in the order of the updates."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows, texts = [], []
    for line in arguments.data.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        messages = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        if len(tokenizer(text).input_ids) <= arguments.max_row_tokens:
            rows.append({"prompt": row["question"], "completion": row["answer"]})
            texts.append(text)
        if len(rows) == arguments.num_steps * arguments.batch + arguments.num_eval:
            break
    num_train = len(rows) - arguments.num_eval
    if num_train < arguments.num_steps * arguments.batch:
        sys.exit(f"{arguments.data} has only {len(rows)} rows of {arguments.max_row_tokens} tokens")
    for name, part in (("train", rows[:num_train]), ("eval", rows[num_train:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (out / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    order = np.random.Generator(np.random.PCG64([DATA_SEED, 0])).permutation(num_train)
    return [texts[index] for index in order.tolist()], texts[num_train:]


@torch.no_grad()
def largest_products(model: PreTrainedModel, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """[texts, layers]: the largest absolute input of each layer's down projection."""
    largest = torch.zeros(len(model.model.layers))
    for index, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda _, inputs, index=index: largest.__setitem__(index, inputs[0].abs().max())
        )
    found = []
    for text in texts:
        model(input_ids=tokenizer(text, return_tensors="pt").input_ids)
        found.append(largest.clone())
    return torch.stack(found)


def drive_activations(
    arguments: argparse.Namespace, out: Path, order: list[str], held_out: list[str]
) -> dict[str, Any]:
    """Save the rescaled model, which overflows first near the middle of the run."""
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    train = largest_products(model, tokenizer, order)
    of_updates = train.unflatten(0, (arguments.num_steps, arguments.batch)).amax(1)
    held_out_max = largest_products(model, tokenizer, held_out).amax(0)
    margins = []
    for update in range(2, arguments.num_steps - 2):
        before = torch.maximum(of_updates[:update].amax(0), held_out_max)
        ratio, layer = (of_updates[update] / before).max(0)
        margins.append((float(ratio), update, int(layer), float(before[layer])))
    ratio, update, layer, before_max = max(margins)
    factor = HALF_MAX / (before_max * ratio**0.5)
    with torch.no_grad():
        mlp = model.model.layers[layer].mlp
        mlp.up_proj.weight.mul_(factor)
        mlp.down_proj.weight.div_(factor)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    return {"layer": layer, "factor": factor, "expected_update": update + 1, "margin": ratio**0.5}


class MultipliedGradient(torch.autograd.Function):
    """The loss as it is, with a gradient that is multiplied."""

    @staticmethod
    def forward(context: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * GRADIENT_FACTOR


def drive_gradients() -> None:
    original = step.summed_loss

    @functools.wraps(original)
    def summed_loss(*inputs: Any) -> torch.Tensor:
        loss: torch.Tensor = MultipliedGradient.apply(original(*inputs))
        return loss

    step.summed_loss = summed_loss


def trained(arguments: argparse.Namespace, out: Path, precision: str) -> dict[str, Any]:
    model = out / "model" if arguments.drive == "activations" else arguments.model
    config = {
        "model": str(model),
        "dataset": str(out / "train.jsonl"),
        "eval_dataset": str(out / "eval.jsonl"),
        "method": arguments.method,
        "precision": precision,
        "global_batch_size": arguments.batch,
        "per_device_train_batch_size": arguments.batch,
        "per_device_eval_batch_size": 4,
        "activation_checkpointing": "off",
        "max_length": arguments.max_row_tokens,
        "max_steps": arguments.num_steps,
        "learning_rate": RATES[arguments.method],
        "warmup_steps": WARMUP_STEPS,
        "eval_steps": 1000,
        "save_steps": 1000,
        "report_samples": 0,
        "data_seed": DATA_SEED,
        "output_dir": str(out / f"run-{precision}"),
    }
    if arguments.drive == "activations":
        config["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj"]
    observer = Telling()
    plan = plan_run(resolve_config(config, ()), observer, effort=QUICK).plan
    with HalfProductsInFp32():
        summary = trimtab.train(plan, observer=observer)
    changes = [one for one in observer.events if one.event == "recipe changed"]
    return {
        "eval_loss": summary.eval_loss,
        "base_eval_loss": summary.base_eval_loss,
        "num_steps": summary.num_steps,
        "changes": [
            {"step": one.step, "to": one.details["to"], "because": one.details["because"]}
            for one in changes
        ],
        "num_overflows": sum(one.event == "update skipped" for one in observer.events),
    }


def run(arguments: argparse.Namespace) -> None:
    if (arguments.method, arguments.drive) == ("full", "activations"):
        sys.exit("full fine-tuning of rescaled weights is another run: take --drive gradients")
    name = f"{arguments.method}-{arguments.drive}-{'no-bf16' if arguments.no_bf16 else 'bf16'}"
    out = arguments.out / name
    out.mkdir(parents=True)
    order, held_out = prepare(arguments, out)
    result: dict[str, Any] = {"name": name, "expected": "fp32" if arguments.no_bf16 else "bf16"}
    if arguments.drive == "activations":
        result |= drive_activations(arguments, out, order, held_out)
    else:
        drive_gradients()
    if arguments.no_bf16:
        native = device.is_native
        device.is_native = lambda precision, where: precision != "bf16" and native(precision, where)
    result["fallen"] = trained(arguments, out, "fp16")
    result["reference"] = trained(arguments, out, result["expected"])
    text = json.dumps(result)
    (arguments.out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def table(files: list[Path]) -> None:
    print("| run | fault | ended in | held-out loss | that format from the start | difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for file in files:
        one = json.loads(file.read_text(encoding="utf-8"))
        (change,) = one["fallen"]["changes"]
        loss, reference = one["fallen"]["eval_loss"], one["reference"]["eval_loss"]
        fault = f"update {change['step']}: {change['because'].split(';')[0]}"
        print(
            f"| {one['name']} | {fault} | {change['to']} | {loss:.5f} | {reference:.5f} "
            f"| {(loss - reference) / reference:+.3%} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--model", required=True)
    runs.add_argument("--data", type=Path, required=True)
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--method", choices=("lora", "full"), default="lora")
    runs.add_argument("--drive", choices=("activations", "gradients"), default="activations")
    runs.add_argument("--no-bf16", action="store_true")
    runs.add_argument("--num-steps", type=int, default=12)
    runs.add_argument("--batch", type=int, default=4)
    runs.add_argument("--num-eval", type=int, default=16)
    runs.add_argument("--max-row-tokens", type=int, default=130)
    runs.set_defaults(action=run)
    tables = commands.add_parser("table")
    tables.add_argument("files", type=Path, nargs="+")
    tables.set_defaults(action=lambda arguments: table(arguments.files))
    parsed = parser.parse_args()
    parsed.action(parsed)
