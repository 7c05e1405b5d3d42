"""Files for whole runs on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_rows(path: Path, num_rows: int = 48) -> Path:
    """Prompt and completion rows, of ragged lengths, that a tiny model can learn."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(num_rows):
            prompt = f"the question of the user {'fox ' * (number % 7)}{number}"
            completion = f"the answer is {'lazy dog ' * (number % 3 + 1)}"
            stream.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    return path


def tiny_config(folder: Path, model: Path, **changes: Any) -> dict[str, Any]:
    """A configuration of a short run under `folder`; rows are written where they lack."""
    rows = folder / "rows.jsonl"
    if not rows.exists():
        write_rows(rows)
    config: dict[str, Any] = {
        "model": str(model),
        "dataset": str(rows),
        "output_dir": str(folder / "run"),
        "precision": "fp32",
        "global_batch_size": 8,
        "max_steps": 6,
        "report_samples": 1,
        "max_new_tokens": 4,
        "device": "cpu",
    }
    return {**config, **changes}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
