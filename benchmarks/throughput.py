"""How fast is a weight update beside other trainers', and beside what the machine's products allow?

    python benchmarks/throughput.py run --model DIR --data gsm8k_train.jsonl --peer-python PYTHON \
        --out DIR [--methods full lora] [--peers trl trl-best transformers] [--rounds 4] \
        [--packed-rows 2]
    python benchmarks/throughput.py summary DIR

`PYTHON` is an interpreter with TRL 1.16 and transformers 5.23. Two trainers at a time stand ready
and make updates of the same 16 rows in turn, A B A B, so that whatever else the machine does meets
both; the rate of matrix products at the model's own shapes is measured between them. Each update is
a line of DIR/updates.jsonl; a pair that is there already is not run again. Our runs go through
`trimtab.train`, with micro-batches of `--micro-batch` rows, bf16, and nothing else set that speed
depends on. With `--packed-rows N` both pack documents into rows of 2,048 tokens, N rows an update,
one at a time; the peer's rows are taken to be full.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from agreement import BATCH, RATES, prepare

import trimtab
from trimtab.cli.entry import KERNEL_CACHES, TUNABLES, VARIABLE
from trimtab.engine.observer import Silent
from trimtab.runs.records import UpdateRecord

FIRST = 2
"""Updates that warm up and are not counted."""
PACKED_LENGTH = 2048
PEERS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "trl": (["--trainer", "trl"], {}),
    "trl-best": (
        ["--trainer", "trl", "--dtype", "bfloat16"],
        {"gradient_checkpointing": False},
    ),
    "transformers": (["--trainer", "transformers"], {"bf16": True}),
}
Record = dict[str, Any]


class Paced(Silent):
    """Makes the run wait for a line before each update after the first."""

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        told = {
            "seconds": record.seconds,
            "loss": record.loss,
            "num_tokens": record.num_tokens,
            "num_trainable_tokens": record.num_trainable_tokens,
            "peak_memory_bytes": record.peak_memory_bytes,
        }
        print(json.dumps(told), flush=True)
        if record.step < num_steps and not sys.stdin.readline():
            raise SystemExit


def ours(config: str) -> None:
    """The paced run, in a process of its own."""
    sys.stdin.readline()
    trimtab.train(json.loads(config), observer=Paced())


class Side:
    """A trainer in a process of its own, which makes an update when told to."""

    def __init__(self, command: list[str], environment: dict[str, str], errors: IO[str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment},
        )

    def update(self) -> Record:
        """One update's record. A loss that comes in a line of its own is the one before's."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            record: Record = json.loads(line)
            if "seconds" in record:
                return record
        sys.exit(f"{self.process.args} ended: see its errors")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def our_side(options: argparse.Namespace, method: str, num_steps: int, errors: IO[str]) -> Side:
    config = {
        "model": options.model,
        "dataset": str(options.out / "ours.jsonl"),
        "dataset_columns": {"prompt": "question", "completion": "answer"},
        "method": method,
        "max_steps": num_steps,
        "learning_rate": RATES[method],
        "warmup_steps": 2,
        "activation_checkpointing": "off",
        "precision": "bf16",
        **_our_layout(options),
        "eval_strategy": "no",
        "save_steps": num_steps,
        "report_samples": 0,
        "output_dir": str(options.out / f"run-{method}-{time.time_ns()}"),
        **({"lora_r": 16} if method == "lora" else {}),
    }
    return Side(
        [sys.executable, __file__, "ours", json.dumps(config)],
        {VARIABLE: TUNABLES, **KERNEL_CACHES},
        errors,
    )


def peer_side(
    options: argparse.Namespace, method: str, peer: str, num_steps: int, errors: IO[str]
) -> Side:
    script = Path(__file__).parent / "peers" / "trl_paced.py"
    trainer, settings = PEERS[peer]
    if options.packed_rows:
        settings = settings | {
            "packing": True,
            "max_length": PACKED_LENGTH,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": options.packed_rows,
        }
    command = [
        *(options.peer_python, str(script), "--model", options.model),
        *("--rows", str(options.out / "peer.jsonl"), "--method", method),
        *("--num-steps", str(num_steps), "--micro-batch", str(options.micro_batch)),
        *(*trainer, "--settings", json.dumps(settings)),
    ]
    return Side(command, {}, errors)


def _our_layout(options: argparse.Namespace) -> dict[str, Any]:
    if not options.packed_rows:
        return {
            "packing": False,
            "global_batch_size": BATCH,
            "per_device_train_batch_size": options.micro_batch,
        }
    return {
        "packing": True,
        "max_length": PACKED_LENGTH,
        "global_batch_size": options.packed_rows,
        "per_device_train_batch_size": 1,
    }


def product_flops_per_s(shapes: list[tuple[int, int]], num_tokens: int) -> float:
    """Of the three products of a linear module's update, in bf16, all shapes together."""
    operations, seconds = 0.0, 0.0
    for num_in, num_out in shapes:
        x = torch.randn(num_tokens, num_in).bfloat16()
        weight = torch.randn(num_out, num_in).bfloat16()
        gradient = torch.randn(num_tokens, num_out).bfloat16()
        seconds += fastest(lambda x=x, w=weight: x @ w.t())
        seconds += fastest(lambda g=gradient, w=weight: g @ w)
        seconds += fastest(lambda g=gradient, x=x: g.t() @ x)
        operations += 3 * 2 * num_tokens * num_in * num_out
    return operations / seconds


def fastest(product: Callable[[], object], repeats: int = 5) -> float:
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        product()
        found.append(time.perf_counter() - started)
    return min(found)


def layer_shapes(model: str) -> list[tuple[int, int]]:
    config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config["head_dim"]
    keys = config["num_key_value_heads"] * head
    return [
        (hidden, config["num_attention_heads"] * head),
        *((hidden, keys), (hidden, keys)),
        (config["num_attention_heads"] * head, hidden),
        *((hidden, inner), (hidden, inner), (inner, hidden)),
    ]


def floor_flops(model: str, update: Record) -> float:
    """6 operations a weight and token; of the head at trainable positions alone."""
    config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    layers = config["num_hidden_layers"] * sum(i * o for i, o in layer_shapes(model))
    head = config["hidden_size"] * config["vocab_size"]
    return 6.0 * (layers * update["num_tokens"] + head * update["num_trainable_tokens"])


def run(options: argparse.Namespace) -> None:
    num_steps = FIRST + options.rounds
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "ours.jsonl").exists():
        num_batches = 2 * num_steps if options.packed_rows else num_steps
        prepare(options.data, options.model, options.out, options.max_row_tokens, num_batches)
    ledger = options.out / "updates.jsonl"
    done = {(each["method"], each["pair"]) for each in read(ledger)}
    for method in options.methods:
        for peer in options.peers:
            if (method, peer) in done:
                continue
            records = pair(options, method, peer, num_steps)
            with ledger.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)


def pair(options: argparse.Namespace, method: str, peer: str, num_steps: int) -> list[Record]:
    records: list[Record] = []
    shapes = layer_shapes(options.model)
    with (options.out / f"errors-{method}-{peer}.log").open("w", encoding="utf-8") as errors:
        sides = {
            "trimtab": our_side(options, method, num_steps, errors),
            peer: peer_side(options, method, peer, num_steps, errors),
        }
        try:
            for step in range(num_steps):
                for name, side in sides.items():
                    record = {"method": method, "pair": peer, "side": name, "step": step}
                    record |= side.update()
                    if options.packed_rows and name == peer:
                        record["num_tokens"] = options.packed_rows * PACKED_LENGTH
                    if name == "trimtab":
                        num_micro_batches = options.packed_rows or BATCH // options.micro_batch
                        num_tokens = record["num_tokens"] // num_micro_batches
                        record["product_flops_per_s"] = product_flops_per_s(shapes, num_tokens)
                        record["floor_flops"] = floor_flops(options.model, record)
                    records.append(record)
                    print(json.dumps(record), flush=True)
        finally:
            for side in sides.values():
                side.end()
    return records


def read(path: Path) -> list[Record]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(out: Path) -> None:
    pairs: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in read(out / "updates.jsonl"):
        if record["step"] >= FIRST:
            pairs[record["method"], record["pair"]][record["side"]].append(record)
    for (method, peer), sides in pairs.items():
        us, them = sides["trimtab"], sides[peer]
        ratios = [
            rate_of(us_one, us_one) / rate_of(them_one, us_one)
            for us_one, them_one in zip(us, them, strict=True)
        ]
        peaks = [max(each["peak_memory_bytes"] for each in side) for side in (us, them)]
        print(
            f"{method:5} {peer:13}"
            f"  tokens/s {rate(us, us):6.0f} against {rate(them, us):6.0f}"
            f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            f"  peak {peaks[0] / 2**30:.2f} against {peaks[1] / 2**30:.2f} GiB"
            f" ({peaks[0] / peaks[1]:.2f}×)"
            + (f"  {share_of_floor(us):.0%} of the floor" if method == "full" else "")
        )


def rate(updates: list[Record], beside: list[Record]) -> float:
    """Non-pad tokens a second of the median update."""
    return statistics.median(map(rate_of, updates, beside))


def rate_of(update: Record, beside: Record) -> float:
    """A peer that does not tell its tokens had the rows of the update beside it."""
    tokens: float = update.get("num_tokens", beside["num_tokens"])
    return tokens / float(update["seconds"])


def share_of_floor(updates: list[Record]) -> float:
    return statistics.median(
        each["floor_flops"] / each["product_flops_per_s"] / each["seconds"] for each in updates
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--model", required=True)
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--peer-python", required=True)
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--methods", nargs="+", default=["full", "lora"])
    running.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    running.add_argument("--rounds", type=int, default=4)
    running.add_argument("--micro-batch", type=int, default=8)
    running.add_argument("--packed-rows", type=int, default=0)
    running.add_argument("--max-row-tokens", type=int, default=10**6)
    commands.add_parser("summary").add_argument("out", type=Path)
    commands.add_parser("ours").add_argument("config")
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    elif options.command == "summary":
        summary(options.out)
    else:
        ours(options.config)


if __name__ == "__main__":
    main()
