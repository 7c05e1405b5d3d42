"""Predicted and actual seconds an update of two ranks on this machine's CPU.

    python benchmarks/ranks.py speed [--model FOLDER] [--precision fp32] [--out FILE.jsonl]

The forecast's own formula (trimtab.planning.step_time) is fed this machine's rates in place of a
datasheet's: matrix products, memory and gloo's exchanges, each measured by both ranks at once, as
they will compute. Nothing is fitted to the runs. One rank alone is predicted and run beside them,
so that an error of the exchanges is told apart from one of the computing. Run it on a machine that
does nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from support.ranks import rank_pair
from support.tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from trimtab.engine.distributed import Ranks
from trimtab.planning.communication import Fabric
from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.plan import Plan
from trimtab.planning.rules.memory import memory_arithmetic
from trimtab.planning.rules.shape import linear_modules, num_adapter_weights
from trimtab.planning.step_time import PredictedTime, Rates, Split, StepTerms
from trimtab.planning.timing import Work
from trimtab.probes.device import probe_device

LENGTH = 256
NUM_UPDATES = 8
NUM_WARMING = 3
"""Updates that are not counted: caches are cold, and memory is asked for."""
EXCHANGED_BYTES = 64 * 2**20
NUM_EXCHANGES = 8
NUM_HOPS = 50

CASES: dict[str, dict[str, Any]] = {
    "full, one rank": {"method": "full", "ranks": 1},
    "full, replicated": {"method": "full", "ranks": 2, "parallelism": "replicate"},
    "full, sharded": {"method": "full", "ranks": 2, "parallelism": "shard"},
    "lora, one rank": {"method": "lora", "ranks": 1},
    "lora, replicated": {"method": "lora", "ranks": 2, "parallelism": "replicate"},
    "lora, sharded": {"method": "lora", "ranks": 2, "parallelism": "shard"},
}


@dataclass(frozen=True)
class MeasuredRates:
    """Of one rank while the other measures too. exchange_bytes_per_s: what a ring moves through
    each rank; hop_s: an exchange of nothing, for each of its steps."""

    flops_per_s: float
    memory_bytes_per_s: float
    exchange_bytes_per_s: float
    hop_s: float

    def as_rates(self) -> Rates:
        """What links reach was measured, so that no share is taken of it."""
        speed = self.exchange_bytes_per_s
        fabric = Fabric(2, speed, speed, share=1.0, intra_hop_s=self.hop_s, inter_hop_s=self.hop_s)
        return Rates(self.flops_per_s, self.memory_bytes_per_s, fabric)


def measured_here(ranks: Ranks, precision: str) -> dict[str, float]:
    """A case of `support.ranks`, which runs on both at once."""
    dist.barrier()
    facts = Facts().adding(probe_device(torch.device("cpu")))
    dist.barrier()
    large = torch.zeros(EXCHANGED_BYTES // 4)
    large_s = _quickest_s(lambda: dist.all_reduce(large), NUM_EXCHANGES)
    nothing_s = _quickest_s(lambda: dist.all_reduce(torch.zeros(1)), NUM_HOPS)
    num_steps = 2 * (ranks.num_ranks - 1)
    moved = num_steps / ranks.num_ranks * EXCHANGED_BYTES
    return asdict(
        MeasuredRates(
            flops_per_s=facts.number(f"device.matmul_flops_per_s.{precision}"),
            memory_bytes_per_s=facts.number("device.memory_bandwidth_bytes_per_s"),
            exchange_bytes_per_s=moved / (large_s - nothing_s),
            hop_s=nothing_s / num_steps,
        )
    )


def _quickest_s(act: Callable[[], object], number: int) -> float:
    seconds = []
    for _ in range(number):
        begun = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def predicted(plan: Plan, rates: Rates, num_ranks: int) -> StepTerms:
    """By the formula of the forecast, for rows of LENGTH tokens all of which are trained on."""
    settings, facts = plan.settings(), Facts().adding(plan.facts)
    num_trained = facts.integer("model.num_parameters")
    if settings.method == "lora":
        num_trained = num_adapter_weights(linear_modules(facts), settings.lora_r)
    is_sharded = settings.parallelism == "shard"
    split = Split(num_ranks, num_ranks if is_sharded else 1)
    memory = memory_arithmetic(
        facts,
        method=settings.method,
        precision=settings.precision,
        optim=settings.optim,
        num_trained=num_trained,
        num_shards=split.num_shards,
    )
    work = Work(facts, settings.method, settings.precision, num_trained)
    tokens = settings.per_device_train_batch_size * LENGTH
    return PredictedTime(work, memory, rates, split).terms(
        MicroBatchSize(tokens, tokens, tokens * LENGTH),
        settings.gradient_accumulation_steps,
        settings.activation_checkpointing,
    )


def actual_s(run: Path) -> float:
    """The median update of a run, after the first ones."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").open(encoding="utf-8")]
    seconds = [record["seconds"] for record in records if "grad_norm" in record]
    return statistics.median(seconds[NUM_WARMING:])


def outcomes(model: Path | None, precision: str) -> Iterator[dict[str, Any]]:
    """The rates, and then each case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if model is None:
            model = small_model(folder / "model")
        write_rows(folder / "rows.jsonl")
        with rank_pair() as pair:
            of_ranks = pair.run("rank_speed:measured_here", precision=precision)
        rates = MeasuredRates(
            **{key: statistics.mean(each[key] for each in of_ranks) for key in of_ranks[0]}
        )
        yield {"name": "rates", **asdict(rates)}
        for case, asked in CASES.items():
            run = trained(folder, model, case, precision=precision, **asked)
            plan = Plan.from_json(json.loads((run / "plan.json").read_text(encoding="utf-8")))
            terms = predicted(plan, rates.as_rates(), asked["ranks"])
            yield {
                "name": case,
                "predicted_s": terms.update_s,
                "actual_s": actual_s(run),
                "terms": asdict(terms),
            }


def trained(
    folder: Path, model: Path, case: str, *, ranks: int, precision: str, **changes: Any
) -> Path:
    """The run folder of NUM_UPDATES updates of 8 rows, in micro-batches of 2."""
    run = folder / "runs" / case.replace(", ", "-").replace(" ", "-")
    config = {
        "model": str(model),
        "dataset": str(folder / "rows.jsonl"),
        "chat_template": "none",
        "max_length": LENGTH,
        "eval_dataset": "none",
        "precision": precision,
        "global_batch_size": 8,
        "per_device_train_batch_size": 2,
        "activation_checkpointing": "off",
        "max_steps": NUM_UPDATES,
        "save_steps": NUM_UPDATES,
        "learning_rate": 1e-4,
        "report_samples": 0,
        "device": "cpu",
        "output_dir": str(run),
        **changes,
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "trimtab", "train", str(file), "--num-processes", str(ranks)],
        # One rank has the part of the machine that each of two has.
        env={**os.environ, "OMP_NUM_THREADS": str(threads_of_each())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return run


def threads_of_each() -> int:
    return max(1, len(os.sched_getaffinity(0)) // 2)


def small_model(folder: Path) -> Path:
    """A random llama of 29M weights, whose layers are wide enough to be work."""
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tiny_tokenizer(chat_template=None).save_pretrained(folder)
    return folder


def write_rows(file: Path) -> None:
    """Rows that are all cut to LENGTH tokens, and differ."""
    with file.open("w", encoding="utf-8") as stream:
        for number in range(8 * NUM_UPDATES + 8):
            words = " ".join(f"{number * 7919 + place:05d} fox" for place in range(LENGTH))
            stream.write(json.dumps({"text": words}) + "\n")


def measure(model: Path | None, precision: str, out: Path | None) -> None:
    """Print the rates and a line for each case as it is done."""
    for outcome in outcomes(model, precision):
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(outcome) + "\n")
        print(told(outcome), flush=True)


def told(outcome: dict[str, Any]) -> str:
    if outcome["name"] == "rates":
        return (
            f"each of two ranks at once: {outcome['flops_per_s'] / 1e9:.1f} GFLOP/s, memory "
            f"{outcome['memory_bytes_per_s'] / 1e9:.1f} GB/s, exchanges "
            f"{outcome['exchange_bytes_per_s'] / 1e9:.2f} GB/s and {outcome['hop_s'] * 1e6:.0f} µs "
            "a step"
        )
    predicted_s, actual = outcome["predicted_s"], outcome["actual_s"]
    terms = outcome["terms"]
    causes = ("arithmetic_s", "memory_s", "waiting_s", "optimizer_s")
    parts = ", ".join(f"{cause.removesuffix('_s')} {terms[cause]:.3f}" for cause in causes)
    return (
        f"{outcome['name']}: predicted {predicted_s:.3f} s an update, actual {actual:.3f} s "
        f"({predicted_s / actual - 1:+.0%}); {parts}"
    )
