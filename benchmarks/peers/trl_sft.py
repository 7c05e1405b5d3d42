"""Train with TRL's SFTTrainer on rows in the order that they stand in; for its own environment.

    python benchmarks/peers/trl_sft.py --model DIR --rows ordered.jsonl --method full \
        --rate 3.5e-5 --steps 60 --out DIR

`--rows` holds {"prompt": [message], "completion": [message]} in the order of training. Everything
that is not named on the command line is TRL's default. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class UpdateClock(TrainerCallback):
    """The seconds of every weight update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.seconds.append(time.perf_counter() - self._begun)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--method", choices=["full", "lora"], required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warmup-steps", type=int, default=6)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--no-gradient-checkpointing", action="store_true")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()

    rows = [json.loads(line) for line in Path(options.rows).read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    clock = UpdateClock()
    trainer = SFTTrainer(
        model=options.model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        peft_config=(
            LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            if options.method == "lora"
            else None
        ),
        args=SFTConfig(
            output_dir=options.out,
            use_cpu=not torch.cuda.is_available(),
            per_device_train_batch_size=options.micro_batch,
            gradient_accumulation_steps=options.batch // options.micro_batch,
            max_steps=options.steps,
            learning_rate=options.rate,
            lr_scheduler_type="linear",
            warmup_steps=options.warmup_steps,
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            gradient_checkpointing=not options.no_gradient_checkpointing,
            logging_steps=1,
        ),
        callbacks=[clock],
    )
    trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    model = trainer.model
    if options.method == "lora":
        model = model.merge_and_unload()
    model.to(torch.float32).save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    AutoModelForCausalLM.from_pretrained(options.out)
    print(
        json.dumps(
            {
                "trainer": "trl",
                "seconds": clock.seconds,
                "losses": losses,
                "peak_memory_bytes": peak,
                "training_dtype": str(trainer.model.dtype),
                "bf16": trainer.args.bf16,
                "gradient_checkpointing": trainer.args.gradient_checkpointing,
            }
        )
    )


if __name__ == "__main__":
    main()
