"""Do we train what TRL trains? The same rows in the same order, then one scorer for both.

    python benchmarks/agreement.py --data gsm8k_train.jsonl --model DIR --peer-python PYTHON \
        --out DIR

`PYTHON` is an interpreter with TRL 1.16 and transformers 5.23. `--num-steps` (60) updates of 16
examples, linear schedule with 6 updates of warmup, 256 held-out rows; full at 3.5e-5 and LoRA r=16
at 3.5e-4. The rows are those of at most `--max-row-tokens` tokens, in the file's order. Prints one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 16
MICRO_BATCH = 8
NUM_EVAL = 256
WARMUP_STEPS = 6
DATA_SEED = 42
RATES = {"lora": 3.5e-4, "full": 3.5e-5}


def messages_of(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    return {
        "prompt": [{"role": "user", "content": row["question"]}],
        "completion": [{"role": "assistant", "content": row["answer"]}],
    }


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepare(data: Path, model: str, out: Path, max_row_tokens: int, num_steps: int) -> None:
    """Write the rows for both sides, so that both meet them in one order.

    We visit row p[t] at time t, p being the seeded permutation; so our file holds the row of time
    t at place p[t], and TRL's holds it at place t.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    short = [row for row in rows if num_tokens(tokenizer, row) <= max_row_tokens]
    ordered, held_out = short[: num_steps * BATCH], short[-NUM_EVAL:]
    assert len(short) >= num_steps * BATCH + NUM_EVAL
    permutation = np.random.Generator(np.random.PCG64([DATA_SEED, 0])).permutation(len(ordered))
    ours: list[Any] = [None] * len(ordered)
    for when, place in enumerate(permutation.tolist()):
        ours[place] = ordered[when]
    write_jsonl(out / "ours.jsonl", ours)
    write_jsonl(out / "peer.jsonl", [messages_of(row) for row in ordered])
    write_jsonl(out / "eval.jsonl", held_out)


def num_tokens(tokenizer: Any, row: dict[str, str]) -> int:
    messages = [*messages_of(row)["prompt"], *messages_of(row)["completion"]]
    return len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])


def train_ours(method: str, model: str, out: Path, num_steps: int) -> dict[str, Any]:
    run = out / f"ours-{method}"
    command = [
        *(sys.executable, "-m", "trimtab", "train", "--json", "--model", model),
        *("--dataset", str(out / "ours.jsonl"), "--eval-dataset", str(out / "eval.jsonl")),
        *("--dataset-columns", "{prompt: question, completion: answer}", "--method", method),
        *("--max-steps", str(num_steps), "--learning-rate", str(RATES[method])),
        *("--warmup-steps", str(WARMUP_STEPS), "--global-batch-size", str(BATCH)),
        *("--per-device-train-batch-size", str(MICRO_BATCH), "--data-seed", str(DATA_SEED)),
        *("--eval-steps", str(num_steps), "--save-steps", str(num_steps)),
        *("--precision", "bf16", "--report-samples", "0", "--output-dir", str(run)),
    ]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    updates = [record for record in map(json.loads, lines) if "loss" in record]
    return {
        **json.loads(done.stdout),
        "seconds": [record["seconds"] for record in updates],
        "losses": [record["loss"] for record in updates],
        "wall_s": time.perf_counter() - started,
        "weights": str(run / ("adapter" if method == "lora" else "model")),
    }


def train_peer(method: str, model: str, out: Path, python: str, num_steps: int) -> dict[str, Any]:
    weights = out / f"peer-{method}"
    script = Path(__file__).parent / "peers" / "trl_sft.py"
    command = [
        *(python, str(script), "--model", model, "--rows", str(out / "peer.jsonl")),
        *("--method", method, "--rate", str(RATES[method]), "--steps", str(num_steps)),
        *("--warmup-steps", str(WARMUP_STEPS), "--micro-batch", str(MICRO_BATCH)),
        *("--batch", str(BATCH), "--no-gradient-checkpointing", "--out", str(weights)),
    ]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    record = json.loads(done.stdout.splitlines()[-1])
    return {**record, "wall_s": time.perf_counter() - started, "weights": str(weights)}


@torch.no_grad()
def score(weights: str, model: str, out: Path) -> float:
    """Nats per answer token (end of turn included) of the held-out rows, in fp32, row by row."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    if (Path(weights) / "adapter_config.json").exists():
        from peft import AutoPeftModelForCausalLM

        scored = AutoPeftModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    else:
        scored = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    scored.eval()
    total, count = 0.0, 0
    for line in (out / "eval.jsonl").read_text(encoding="utf-8").splitlines():
        parts = messages_of(json.loads(line))
        prompt = tokenizer.apply_chat_template(
            parts["prompt"], add_generation_prompt=True, tokenize=False
        )
        text = prompt + parts["completion"][0]["content"] + "<|im_end|>"
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        logits = scored(ids).logits[0, start - 1 : -1]
        targets = ids[0, start:]
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        count += len(targets)
    return total / count


def num_real_tokens(model: str, out: Path) -> int:
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = (out / "ours.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(num_tokens(tokenizer, json.loads(row)) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-row-tokens", type=int, default=10**6)
    parser.add_argument("--num-steps", type=int, default=60)
    parser.add_argument("--methods", nargs="+", default=["lora", "full"])
    options = parser.parse_args()
    out, model, num_steps = options.out, options.model, options.num_steps
    out.mkdir(parents=True, exist_ok=True)
    prepare(options.data, model, out, options.max_row_tokens, num_steps)
    tokens = num_real_tokens(model, out)
    results: dict[str, Any] = {"num_tokens": tokens, "base": score(model, model, out)}
    for method in options.methods:
        sides = {
            "peer": train_peer(method, model, out, options.peer_python, num_steps),
            "ours": train_ours(method, model, out, num_steps),
        }
        for name, side in sides.items():
            # The median: other work on the machine slows single updates.
            side["tokens_per_s"] = tokens / num_steps / statistics.median(side["seconds"][1:])
            results[f"{name} {method}"] = side
            side["score"] = score(side["weights"], model, out)
            (out / "results.json").write_text(json.dumps(results), encoding="utf-8")
        results[f"difference {method}"] = sides["ours"]["score"] / sides["peer"]["score"] - 1
    (out / "results.json").write_text(json.dumps(results), encoding="utf-8")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
