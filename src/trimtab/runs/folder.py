"""Where everything of a run lies."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.hyperparameters.paths import path_problem
from trimtab.hyperparameters.problems import shown

MAX_MODEL_NAME_LENGTH = 48
WINDOWS_DEVICES = {
    *("CON", "PRN", "AUX", "NUL"),
    *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10)),
}
"""Names that open a device on Windows, whatever stands behind a dot after them."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run by name; `root` is the folder itself."""

    root: Path

    @property
    def config_yaml(self) -> Path:
        return self.root / "config.yaml"

    @property
    def plan_json(self) -> Path:
        return self.root / "plan.json"

    @property
    def provenance_json(self) -> Path:
        return self.root / "provenance.json"

    @property
    def metrics_jsonl(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def events_jsonl(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def data_json(self) -> Path:
        return self.root / "data.json"

    @property
    def samples_json(self) -> Path:
        return self.root / "samples.json"

    @property
    def summary_json(self) -> Path:
        return self.root / "summary.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"


def is_run(folder: Path) -> bool:
    """Whether the folder is a run's; False where it cannot be looked at."""
    # Path.is_file raises for a folder that may not be entered.
    return os.path.isfile(RunFolder(folder).plan_json)  # noqa: PTH113


def refuse_taken(output_dir: Path) -> None:
    """Raises ConfigError where a run could not be made there, before anything is spent on it."""
    refuse_unusable(output_dir)
    try:
        is_taken = output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir()))
    except OSError as error:
        raise _cannot_be_made(output_dir, error) from error
    if is_taken:
        raise _taken(output_dir)


def discard_run(run: RunFolder, *, keep_folder: bool) -> None:
    """Remove what a run has written that never began; the folder too, unless it was the user's."""
    for path in run.root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not keep_folder:
        run.root.rmdir()


def create_run(output_dir: Path) -> RunFolder:
    """Make the run folder at the path as given; an empty folder that is there is taken.

    Raises ConfigError where something else is there already or the folder cannot be made.
    """
    refuse_taken(output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "checkpoints").mkdir()
    except OSError as error:
        raise _cannot_be_made(output_dir, error) from error
    return RunFolder(output_dir)


def open_run(path: Path) -> RunFolder:
    """An existing run. Raises ConfigError where the folder is none."""
    refuse_unusable(path)
    if not is_run(path):
        raise ConfigError(
            "this is no run folder: it has no plan.json.",
            where=str(path),
            hint="Name the folder that `trimtab train` printed.",
        )
    return RunFolder(path)


def generated_name(model: str, method: str, now: datetime) -> str:
    """A name of safe characters, as `SmolLM2-1.7B-lora-20260131-235959`, so one path component.

    `model` is a hub name, a folder's path or a GGUF file's.
    """
    return f"{safe_model_name(model)}-{method}-{now:%Y%m%d-%H%M%S}"


def safe_model_name(model: str) -> str:
    """The last part of a model's name or path, in characters that any file system takes."""
    last_part = re.split(r"[/\\]", model.rstrip("/\\"))[-1].removesuffix(".gguf")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", last_part)[:MAX_MODEL_NAME_LENGTH].strip(".-")
    if safe.partition(".")[0].upper() in WINDOWS_DEVICES:
        safe = f"model-{safe}"
    return safe or "model"


def free_output_dir(root: Path, model: str, method: str, now: datetime) -> Path:
    """A folder under `root` that is not there yet, named after model, method and time."""
    return _free(root / generated_name(model, method, now))


def _free(path: Path) -> Path:
    candidate, number = path, 2
    while os.path.lexists(candidate):
        candidate = path.with_name(f"{path.name}-{number}")
        number += 1
    return candidate


def _cannot_be_made(output_dir: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the run folder cannot be made: {error.strerror}.",
        where=str(output_dir),
        hint="Choose another output_dir.",
    )


def _taken(output_dir: Path) -> ConfigError:
    if is_run(output_dir):
        return ConfigError(
            "output_dir is a run already, and a run is never overwritten.",
            where=str(output_dir),
            hint=f"Choose another, such as {_free(output_dir)}; or go on with: "
            f"trimtab resume {output_dir}",
        )
    kind = "holds other files" if output_dir.is_dir() else "is a file"
    return ConfigError(
        f"output_dir {kind}.",
        where=str(output_dir),
        hint=f"Choose another, such as {_free(output_dir)}.",
    )


def refuse_unusable(path: Path) -> None:
    problem = path_problem(str(path))
    if problem is not None:
        raise ConfigError(f"{shown(str(path))} cannot be a run folder.", hint=problem)


def check_room_on_disk(path: Path, needed_bytes: int) -> None:
    """Raise ConfigError where the disk has less room than the run will write."""
    existing = next(
        parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists()
    )
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise ConfigError(
            f"the run needs about {needed_bytes / 2**30:.1f} GiB of disk for its checkpoints and "
            f"result, and {free_bytes / 2**30:.1f} GiB are free.",
            where=str(path),
            hint="Free some, choose another output_dir, or set a larger save_steps and "
            "save_total_limit: 1.",
        )
