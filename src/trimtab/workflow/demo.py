"""The main job on the embedded model and on data that every Python has."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from trimtab.data.stdlib_docstrings import write_pairs
from trimtab.engine.observer import Observer, Silent
from trimtab.models.source import embedded_demo_model
from trimtab.runs.cache import cache_folder
from trimtab.runs.folder import free_output_dir
from trimtab.runs.records import RunSummary
from trimtab.workflow.training import train

NUM_TRAIN = 288
NUM_EVAL = 48
SEED = 20


def demo(*, output_dir: Path | None = None, observer: Observer | None = None) -> RunSummary:
    """Teach SmolLM2-135M-Instruct to write a docstring's summary line from a function's source.

    The examples are read out of the standard library of the running interpreter, and no module is
    both trained on and held out. Raises ConfigError where the `demo` extra is not installed.
    """
    observer = observer or Silent()
    model = embedded_demo_model()
    observer.activity("reading the standard library")
    files = write_pairs(cache_folder() / "demo", num_train=NUM_TRAIN, num_eval=NUM_EVAL, seed=SEED)
    observer.activity_done()
    run = output_dir or free_output_dir(Path("runs"), "demo", "lora", datetime.now())
    return train(
        {
            "model": str(model),
            "dataset": str(files.train),
            "eval_dataset": str(files.eval),
            "method": "lora",
            "num_train_epochs": 1,
            "max_new_tokens": 32,
            "output_dir": str(run),
        },
        observer=observer,
    )
