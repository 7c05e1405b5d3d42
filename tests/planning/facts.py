"""Constructed facts: written by hand to be plausible, measured on nothing.

Devices: a CPU of two cores with bf16 in its matrix units, CUDA cards of 8 GB (before bf16), 24 GB
and 80 GB. Models: the shapes of a llama of 135M and one of 8B weights. Rows: 1,024 short ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.hyperparameters.layers import ResolvedConfig, resolve
from trimtab.planning.effort import Effort
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.plan import Plan
from trimtab.planning.planner import make_plan
from trimtab.planning.questions import TrainingRowsQuestion

GB = 10**9
QUICK = Effort("quick")

CPU = {
    "device.kind": "cpu",
    "device.name": "constructed CPU, 2 threads",
    "device.num_threads": 2,
    "device.memory_bytes": 16 * GB,
    "device.memory_available_bytes": 12 * GB,
    "device.matmul_flops_per_s.fp32": 100e9,
    "device.matmul_flops_per_s.bf16": 300e9,
    "device.matmul_flops_per_s.fp16": 20e9,
    "device.native.bf16": True,
    "device.native.fp16": False,
}
PLAIN_CPU = CPU | {
    "device.matmul_flops_per_s.bf16": 30e9,
    "device.native.bf16": False,
}


def cuda(gigabytes: int, *, fp32: float, fp16: float, bf16: float | None) -> dict[str, Any]:
    """A CUDA card; rates in FLOP/s. `bf16` None: emulated, at half of fp32's rate."""
    return {
        "device.kind": "cuda",
        "device.name": f"constructed card of {gigabytes} GB",
        "device.num_threads": 8,
        "device.memory_bytes": gigabytes * GB,
        "device.memory_available_bytes": int(gigabytes * 0.95 * GB),
        "device.matmul_flops_per_s.fp32": fp32,
        "device.matmul_flops_per_s.fp16": fp16,
        "device.matmul_flops_per_s.bf16": fp32 / 2 if bf16 is None else bf16,
        "device.native.bf16": bf16 is not None,
        "device.native.fp16": True,
    }


CARD_8GB = cuda(8, fp32=7e12, fp16=30e12, bf16=None)
CARD_24GB = cuda(24, fp32=35e12, fp16=120e12, bf16=120e12)
CARD_80GB = cuda(80, fp32=50e12, fp16=700e12, bf16=700e12)


def llama_modules(num_layers: int, *, hidden: int, keys: int, inner: int) -> list[list[Any]]:
    """`[name, in_features, out_features, count]` of each linear module; `keys`: of k and v."""
    layers = f"model.layers.0-{num_layers - 1}"
    return [
        [f"{layers}.self_attn.q_proj", hidden, hidden, num_layers],
        [f"{layers}.self_attn.k_proj", hidden, keys, num_layers],
        [f"{layers}.self_attn.v_proj", hidden, keys, num_layers],
        [f"{layers}.self_attn.o_proj", hidden, hidden, num_layers],
        [f"{layers}.mlp.gate_proj", hidden, inner, num_layers],
        [f"{layers}.mlp.up_proj", hidden, inner, num_layers],
        [f"{layers}.mlp.down_proj", inner, hidden, num_layers],
    ]


LLAMA_135M = {
    "model.architecture": "llama",
    "model.num_parameters": 134_515_008,
    "model.num_embedding_parameters": 28_311_552,
    "model.head_is_tied": True,
    "model.head_is_plain": True,
    "model.num_layers": 30,
    "model.hidden_size": 576,
    "model.vocab_size": 49_152,
    "model.max_position_embeddings": 8192,
    "model.linear_modules": llama_modules(30, hidden=576, keys=192, inner=1536),
    "model.packing_refusal": None,
    "model.pad_token": "<|reserved|>",
    "model.pad_token_id": 17,
    "model.pad_token_because": "an unused token that the vocabulary reserves",
    "model.chat_template": True,
}
LLAMA_8B = LLAMA_135M | {
    "model.num_parameters": 8_030_261_248,
    "model.num_embedding_parameters": 525_336_576,
    "model.head_is_tied": False,
    "model.num_layers": 32,
    "model.hidden_size": 4096,
    "model.vocab_size": 128_256,
    "model.linear_modules": llama_modules(32, hidden=4096, keys=1024, inner=14336),
}


def quantiles(num_rows: int, longest: int, nearly_all: float) -> list[float]:
    """201 lengths that rise to the 99.5th percentile `nearly_all`, then to `longest`."""
    return [40 + (nearly_all - 40) * index / 199 for index in range(200)] + [longest]


DATA = {
    "data.num_rows": 1024,
    "data.num_bad_rows": 0,
    "data.num_duplicate_rows": 0,
    "data.format": "prompt_completion",
    "data.format_because": "columns prompt and completion",
    "data.num_tokens": 1024 * 160,
    "data.num_trainable_tokens": 1024 * 60,
    "data.length_mean": 160.0,
    "data.length_max": 312,
    "data.length_quantiles": quantiles(1024, 312, 290),
    "data.templated": True,
    "data.template_because": "the tokenizer has a template",
}


def data(**changes: Any) -> dict[str, Any]:
    """`DATA` with some of its facts changed, by names without `data.`."""
    return DATA | {f"data.{name}": value for name, value in changes.items()}


def config(**values: Any) -> ResolvedConfig:
    """A configuration as Python gives it."""
    return resolve(values={"model": "m", "dataset": "d.jsonl"} | values)


def as_facts(values: Mapping[str, Any]) -> Facts:
    return Facts().adding(Fact(id, value, method="constructed") for id, value in values.items())


def rows_for(
    question: TrainingRowsQuestion, values: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Facts of the rows that are left: nothing is cut unless `changes` says so."""
    total = values["data.num_rows"]
    held_out = question.num_eval_rows
    num_examples = total if question.eval_dataset else total - held_out
    mean = values["data.length_mean"]
    num_tokens = int(num_examples * mean)
    num_rows = -(-num_tokens // question.max_length) if question.packing else num_examples
    rows = {
        "key": question.key,
        "num_examples": num_examples,
        "num_rows": num_rows,
        "num_tokens": num_tokens,
        "num_trainable_tokens": num_examples * 60,
        "num_truncated": 0,
        "num_tokens_cut": 0,
        "num_trainable_tokens_cut": 0,
        "num_rows_losing_targets": 0,
        "num_dropped": 0,
        "num_left_without_target": 0,
        "num_copies_removed": 0,
        "length_max": min(values["data.length_max"], question.max_length),
        "length_mean": mean,
        "trainable_length_max": 120,
        "eval_num_examples": held_out,
        "eval_num_tokens": int(held_out * mean),
        "eval_num_truncated": 0,
        "eval_num_dropped": 0,
    }
    return {f"rows.{name}": value for name, value in (rows | dict(changes)).items()}


def planned(
    resolved: ResolvedConfig | None = None,
    *,
    device: Mapping[str, Any] = CPU,
    model: Mapping[str, Any] = LLAMA_135M,
    rows: Mapping[str, Any] = DATA,
    training_rows: Mapping[str, Any] | None = None,
    num_ranks: int = 1,
    **values: Any,
) -> Plan:
    """The plan on these facts. `values` are the configuration's where `resolved` is not given.

    `training_rows` changes facts of the rows that are left, by names without `rows.`.
    """
    resolved = config(**values) if resolved is None else resolved
    known = {**device, **model, **rows}
    facts = as_facts(known)
    answer = make_plan(resolved, facts, output_dir="runs/r", num_ranks=num_ranks, effort=QUICK)
    assert isinstance(answer, tuple), "planned without the training rows"
    (question,) = answer
    assert isinstance(question, TrainingRowsQuestion)
    answered = as_facts({**known, **rows_for(question, known, training_rows or {})})
    plan = make_plan(resolved, answered, output_dir="runs/r", num_ranks=num_ranks, effort=QUICK)
    assert isinstance(plan, Plan)
    return plan
