"""A long jsonl file: seconds to the first update, and memory over what the model needs.

    python benchmarks/many_rows.py --tokenizer DIR --num-rows 1000000 --out FILE.jsonl

`DIR` holds a tokenizer, of SmolLM2 for example. The file is made in a temporary folder, questions
and answers of random words, some 400 bytes a row, and so is a tiny llama for the tokenizer's
vocabulary. `trimtab train` then takes one update of 16 rows in a fresh process, on the file's first
thousand rows and on all of them, twice: the second time what was measured is recalled. Told are the
seconds from the process's start to the end of that update, its CPU seconds, its peak of memory, and
how much higher that peak is than with a thousand rows. Outcomes are appended to `--out`.
With `--packing` the update is of packed rows of 512 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trimtab.cli.entry import KERNEL_CACHES, TUNABLES, VARIABLE

NUM_FEW_ROWS = 1000
NUM_WORDS = 20_000
SEED = 0
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def write_rows(path: Path, num_rows: int) -> None:
    """Questions of 10 to 50 words and answers of 5 to 60, drawn from 20,000 made-up words."""
    draw = random.Random(SEED)
    syllables = ["ba", "ne", "ti", "ro", "lu", "sha", "pen", "dor", "mi", "ka"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(NUM_WORDS)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            prompt = " ".join(draw.choices(words, k=draw.randint(10, 50)))
            completion = " ".join(draw.choices(words, k=draw.randint(5, 60)))
            row = {"prompt": f"{number} {prompt}", "completion": completion}
            file.write(json.dumps(row) + "\n")


def write_model(folder: Path, tokenizer: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    size = len(AutoTokenizer.from_pretrained(tokenizer))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model("llama", vocab_size=size, **sizes, **heads)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / name)


def train_once(config: dict[str, Any]) -> None:
    """In a process of its own: one update, and what it took, as JSON on stdout."""
    import trimtab
    from trimtab.engine.memory import high_water_mark_bytes
    from trimtab.engine.observer import Silent
    from trimtab.runs.records import UpdateRecord

    class AtFirstUpdate(Silent):
        def updated(self, record: UpdateRecord, num_steps: int) -> None:
            if record.step == 1:
                used = os.times()
                outcome = {
                    "at": time.time(),
                    "cpu_s": used.user + used.system + used.children_user + used.children_system,
                    "peak_bytes": high_water_mark_bytes(),
                }
                sys.stdout.write(json.dumps(outcome) + "\n")

    trimtab.train(config, observer=AtFirstUpdate())


def outcome_of(name: str, config: dict[str, Any], cache: Path) -> dict[str, Any]:
    """The run in a fresh process, as the command would start it."""
    environment = {**os.environ, **KERNEL_CACHES, VARIABLE: TUNABLES, "TRIMTAB_CACHE": str(cache)}
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "_train", json.dumps(config)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip()[-2000:]}")
    told = json.loads(done.stdout)
    return {
        "name": name,
        "first_update_s": told["at"] - started,
        "cpu_s": told["cpu_s"],
        "peak_bytes": told["peak_bytes"],
    }


def measured(tokenizer: Path, num_rows: int, out: Path, folder: Path, packing: bool) -> None:
    write_model(folder / "model", tokenizer)
    many, few = folder / "many.jsonl", folder / "few.jsonl"
    write_rows(many, num_rows)
    write_rows(few, NUM_FEW_ROWS)
    base = {
        "model": str(folder / "model"),
        "method": "lora",
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "global_batch_size": 16,
        "learning_rate": 1e-4,
        "precision": "fp32",
        "activation_checkpointing": "off",
        "max_length": 512,
        "packing": packing,
        "eval_strategy": "no",
        "report_samples": 0,
        "device": "cpu",
    }
    runs = [("few, first", few), ("few", few), ("many, first", many), ("many", many)]
    peaks: dict[str, int] = {}
    for number, (name, dataset) in enumerate(runs):
        run = folder / f"run-{number}"
        config = {**base, "dataset": str(dataset), "output_dir": str(run)}
        outcome = outcome_of(name, config, folder / "cache")
        peaks[name] = outcome["peak_bytes"]
        outcome["num_rows"] = num_rows if dataset == many else NUM_FEW_ROWS
        outcome["packing"] = packing
        outcome["file_bytes"] = dataset.stat().st_size
        outcome["over_few_bytes"] = outcome["peak_bytes"] - peaks["few, first"]
        with out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(outcome) + "\n")
        sys.stdout.write(
            f"{name}: {outcome['first_update_s']:.1f} s to the first update, "
            f"{outcome['cpu_s']:.1f} CPU s, peak {outcome['peak_bytes'] / 2**30:.2f} GiB, "
            f"{outcome['over_few_bytes'] / 2**30:+.2f} GiB over few rows\n"
        )
        sys.stdout.flush()


def main() -> None:
    if sys.argv[1:2] == ["_train"]:
        train_once(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--num-rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packing", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trimtab-many-rows-") as folder:
        measured(
            arguments.tokenizer, arguments.num_rows, arguments.out, Path(folder), arguments.packing
        )


if __name__ == "__main__":
    main()
