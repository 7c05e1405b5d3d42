"""Where a study lies: what it is about, one line for each finished run, what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import ConfigError
from trimtab.runs.atomic import mend, write_json

STUDY_FORMAT = 2


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The files of one study by name; `root` is the folder itself."""

    root: Path

    @property
    def study_json(self) -> Path:
        """What is studied, and the plan that all runs share."""
        return self.root / "study.json"

    @property
    def trials_jsonl(self) -> Path:
        """A line for each finished run."""
        return self.root / "trials.jsonl"

    @property
    def looks_jsonl(self) -> Path:
        """A line for each comparison that was read, of whichever values."""
        return self.root / "looks.jsonl"

    @property
    def result_json(self) -> Path:
        """What came of it; absent until all runs are done."""
        return self.root / "result.json"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"


def is_study(path: Path) -> bool:
    return StudyFolder(path).study_json.is_file()


def open_study(root: Path, subject: str) -> tuple[StudyFolder, Mapping[str, Any] | None]:
    """The folder, made where it lacks, and what study.json holds of an earlier start.

    `subject` is a digest of what is studied. Raises ConfigError where something else lies there.
    """
    folder = StudyFolder(root)
    if not folder.study_json.is_file():
        _make(root)
        return folder, None
    mend(root)
    try:
        record = json.loads(folder.study_json.read_text(encoding="utf-8"))
        is_known = record["format"] == STUDY_FORMAT
        is_same = record["subject"] == subject
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(
            "study.json cannot be read, so that the study cannot go on.",
            where=str(root),
            hint="Choose another --output-dir, or remove the folder.",
        ) from error
    if not is_known or not is_same:
        raise ConfigError(
            "this folder holds a study of something else, or of rows, a model or a version of "
            "trimtab that have changed since.",
            where=str(root),
            hint="Choose another --output-dir.",
        )
    return folder, record


def begin_study(folder: StudyFolder, subject: str, record: Mapping[str, Any]) -> None:
    """Write study.json, from which on the folder is this study's."""
    write_json(folder.study_json, {"format": STUDY_FORMAT, "subject": subject, **record})


def _make(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        is_taken = any(child.name != ".lock" for child in root.iterdir())
    except OSError as error:
        raise ConfigError(
            f"the study's folder cannot be made: {error.strerror}.",
            where=str(root),
            hint="Choose another --output-dir.",
        ) from error
    if is_taken:
        raise ConfigError(
            "output_dir holds other files, and no study.",
            where=str(root),
            hint="Choose another --output-dir.",
        )
