"""Where the tools' rows come from, as `datasets` is told: files, subsets and splits."""

from __future__ import annotations

from typing import Any, Final

from trimtab.data.sources import EVALUATION_SPLITS, split_synonyms, with_subset
from trimtab.interop.translating import Difference, Loss

FILE_FORMATS: Final = ("json", "csv", "parquet", "arrow", "text")
"""What `datasets` calls the readers of local files."""


def file_or_path(entry: dict[str, Any]) -> Any:
    """Takes an entry's dataset: a path, or the one file in `data_files` of a file format."""
    path, files = entry.pop("path"), entry.pop("data_files", None)
    one = files[0] if isinstance(files, list) and len(files) == 1 else files
    if isinstance(one, str) and path in FILE_FORMATS:
        return one
    if files is not None:
        entry["data_files"] = files
    return path


HELD_OUT_SPLITS: Final = "a dataset's validation split is evaluated on here, else its test split"
VALIDATION_FIRST: Final = Difference(
    f"the test split is evaluated on there; {HELD_OUT_SPLITS}", about=("eval_dataset",)
)


def is_held_out_split(split: Any) -> bool:
    """Whether it is one that is evaluated on here."""
    return any(str(split) in words for words in map(split_synonyms, EVALUATION_SPLITS))


def of_subset(dataset: Any, subset: Any) -> str:
    """A hub dataset's name with the subset that is read of it. Raises Loss."""
    joined = with_subset(str(dataset), str(subset))
    if joined is None:
        raise Loss(
            f"the subset {subset} is read of a dataset of the hub, and {dataset} is none",
            changes_result=True,
            about=("dataset",),
        )
    return joined
