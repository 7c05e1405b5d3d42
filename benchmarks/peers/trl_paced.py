"""TRL's SFTTrainer, or transformers' Trainer, that makes an update whenever it is told to.

    python benchmarks/peers/trl_paced.py --model DIR --rows ordered.jsonl --method full \
        --trainer trl [--settings '{"gradient_checkpointing": false}'] [--dtype bfloat16]

For an environment of its own. `--rows` holds {"prompt": [message], "completion": [message]} in the
order of training; everything that is not named here is the trainer's default. Waits for a line on
standard input before each update, and prints a line of JSON after it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

BATCH = 16
RATES = {"lora": 3.5e-4, "full": 3.5e-5}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


class Paced(TrainerCallback):
    """Begins an update when told to, and tells what it took."""

    def __init__(self, answers: Any) -> None:
        self.answers = answers
        self._begun = 0.0

    def say(self, **record: object) -> None:
        print(json.dumps(record), file=self.answers, flush=True)

    def on_step_begin(self, *_: object, **__: object) -> None:
        if not sys.stdin.readline():
            raise SystemExit
        self._begun = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.say(
            seconds=time.perf_counter() - self._begun,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    def on_log(self, *_: object, logs: dict[str, float] | None = None, **__: object) -> None:
        if logs and "loss" in logs:
            self.say(loss=logs["loss"])


def common(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(),
        "use_cpu": not torch.cuda.is_available(),
        "per_device_train_batch_size": options.micro_batch,
        "gradient_accumulation_steps": BATCH // options.micro_batch,
        "max_steps": options.num_steps,
        "learning_rate": RATES[options.method],
        "lr_scheduler_type": "linear",
        "warmup_steps": 2,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        **json.loads(options.settings),
    }


def by_trl(options: argparse.Namespace, rows: list[Any], paced: Paced) -> Trainer:
    settings = common(options)
    if options.dtype:
        settings["model_init_kwargs"] = {"dtype": options.dtype}
    return SFTTrainer(
        model=options.model,
        processing_class=AutoTokenizer.from_pretrained(options.model),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(**LORA) if options.method == "lora" else None,
        args=SFTConfig(**settings),
        callbacks=[paced],
    )


def by_transformers(options: argparse.Namespace, rows: list[Any], paced: Paced) -> Trainer:
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=options.dtype or "auto")
    if options.method == "lora":
        model = get_peft_model(model, LoraConfig(**LORA))
    return Trainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=[masked(tokenizer, row) for row in rows],
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        args=TrainingArguments(**common(options)),
        callbacks=[paced],
    )


def masked(tokenizer: Any, row: dict[str, Any]) -> dict[str, list[int]]:
    """The row's tokens, with labels at the completion alone."""
    prompt = tokenizer.apply_chat_template(
        row["prompt"], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    whole = tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=True)[
        "input_ids"
    ]
    labels = [-100] * len(prompt) + whole[len(prompt) :]
    return {"input_ids": whole, "attention_mask": [1] * len(whole), "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--method", choices=["full", "lora"], required=True)
    parser.add_argument("--trainer", choices=["trl", "transformers"], required=True)
    parser.add_argument("--num-steps", type=int, required=True)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--settings", default="{}")
    parser.add_argument("--dtype")
    options = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr
    rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    paced = Paced(answers)
    make = by_trl if options.trainer == "trl" else by_transformers
    make(options, rows, paced).train()


if __name__ == "__main__":
    main()
