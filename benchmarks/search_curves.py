"""Held-out losses along real runs of tiny models, which halving needs and the other tables lack.

    python benchmarks/search_curves.py --out curves.jsonl

Random models of two layers of width 32 learn the summary lines of the standard library's docstrings
at rates from 1e-5 to 1, and are scored after a ninth and a third of a run and at its end. It goes
on where an earlier call with the same file stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search_landscapes import NUM_RATES, RESOURCES

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.runs import tiny_config
from support.tiny import save_tiny_model

from trimtab.data.stdlib_docstrings import find_pairs, standard_library_folder
from trimtab.engine.building import new_loss_scale
from trimtab.engine.loop import run_updates
from trimtab.engine.observer import Silent
from trimtab.engine.state import TrainingState
from trimtab.engine.stops import UpdateStopped
from trimtab.planning.effort import QUICK
from trimtab.planning.recipe import Recipe
from trimtab.runs.ledger import Ledger
from trimtab.runs.records import EvaluationRecord
from trimtab.workflow.trial_plans import trial_bench
from trimtab.workflow.trial_runs import TrialOrder, trial_job

NUM_STEPS = 54
NUM_ROWS = 512
CONFIGS: dict[str, dict[str, Any]] = {
    "llama, full, linear": {"model": "llama", "method": "full"},
    "qwen3, full, cosine": {"model": "qwen3", "method": "full", "lr_scheduler_type": "cosine"},
    "gpt2, full, linear": {"model": "gpt2", "method": "full"},
    "llama, LoRA, linear": {"model": "llama", "method": "lora", "lora_r": 8},
}


class _Scores(Silent):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def evaluated(self, record: EvaluationRecord) -> None:
        if record.step in {NUM_STEPS * resource // RESOURCES[-1] for resource in RESOURCES}:
            self.losses.append(record.eval_loss)


def scored_along(order: TrialOrder) -> list[float]:
    """Losses at the rungs; infinite from where the guard stopped the run."""
    settings = replace(order.settings, eval_steps=NUM_STEPS // RESOURCES[-1])
    job = replace(trial_job(replace(order, settings=settings)), eval_rows=order.eval_rows)
    recipe = Recipe.of(settings)
    state = TrainingState(recipe, loss_scale=new_loss_scale(recipe.precision))
    scores = _Scores()
    torch.manual_seed(settings.seed)
    try:
        run_updates(job, state, scores, lambda: False)
    except UpdateStopped as stopped:
        print(f"update {stopped.step}: {stopped.reason}", file=sys.stderr)
    return scores.losses + [math.inf] * (len(RESOURCES) - len(scores.losses))


def measure(out: Path) -> None:
    torch.set_num_threads(1)
    ledger = Ledger(out)
    done = {(line["config"], line["learning_rate"]) for line in ledger.read().records}
    rates = [float(f"{rate:.3g}") for rate in np.geomspace(1e-5, 1, NUM_RATES)]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        pairs = find_pairs(standard_library_folder())[:: max(1, 2000 // NUM_ROWS)][:NUM_ROWS]
        texts = "".join(json.dumps({"text": pair.summary}) + "\n" for pair in pairs)
        (folder / "rows.jsonl").write_text(texts, encoding="utf-8")
        for name, config in CONFIGS.items():
            wanted = [rate for rate in rates if (name, rate) not in done]
            if not wanted:
                continue
            model = save_tiny_model(folder / name.split(",")[0], config["model"])
            length = {"max_steps": NUM_STEPS, "eval_dataset": 0.1, "learning_rate": 1e-3}
            length |= {"global_batch_size": 4}
            changes = {key: value for key, value in config.items() if key != "model"}
            bench = trial_bench(tiny_config(folder, model, **length, **changes), effort=QUICK)
            for rate in wanted:
                losses = scored_along(bench.order({"learning_rate": rate}))
                ledger.append({"config": name, "learning_rate": rate, "losses": losses})
            print(name, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True)
    measure(parser.parse_args().out)


if __name__ == "__main__":
    main()
