"""What a run's result depends on, and what of it is another when the run is resumed."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from trimtab.errors import ConfigError, DataError, TrimtabError
from trimtab.planning.fact import Facts
from trimtab.probes.device import device_name
from trimtab.probes.device_identity import without_num_threads
from trimtab.runs.folder import RunFolder
from trimtab.runs.sealed import read_sealed, write_sealed
from trimtab.workflow.file_digests import sha256_of
from trimtab.workflow.session import Session

DECIDING_LIBRARIES = ("trimtab", "torch", "transformers", "peft", "numpy")
CHECKED_LIBRARIES = ("tokenizers", "safetensors")
"""What these do is checked by itself: the rows by their tokens, checkpoints by their sha256."""
OPTIMIZER_LIBRARIES = {
    "adamw_8bit": "bitsandbytes",
    "adamw_schedule_free": "pytorch-optimizer",
    "lion": "pytorch-optimizer",
}
OTHER_ROWS = (
    "the rows are not those that were planned: the file, the tokenizer or the chat template has "
    "changed since"
)
RECORDING_SETTINGS = frozenset(
    {
        "logging_steps",
        "max_new_tokens",
        "memory_limit",
        "output_dir",
        "report_samples",
        "save_steps",
        "save_total_limit",
    }
)
"""Settings that decide what is written and shown, and nothing that is trained."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """provenance.json. `files` are the run's own, by sha256; so are `model_files`.

    `num_threads` is of torch's operations on the CPU, whose sums may depend on it.
    """

    settings: Mapping[str, Any]
    files: Mapping[str, str]
    model_files: Mapping[str, str]
    rows: str
    device: str
    num_threads: int
    libraries: Mapping[str, str | None]
    python: str


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is not what it was; `is_harmless` where the result stays the same."""

    what: str
    then: Any
    now: Any
    is_harmless: bool = False

    def __str__(self) -> str:
        return self.what if self.then is None else f"{self.what} was {self.then}, is {self.now}"


def write_provenance(run: RunFolder, provenance: Provenance) -> None:
    write_sealed(run.provenance_json, asdict(provenance))


def read_provenance(run: RunFolder) -> Provenance | Change:
    """What the run was begun with, or why that is not known."""
    name = run.provenance_json.name
    try:
        return Provenance(**read_sealed(run.provenance_json))
    except FileNotFoundError:
        reason = f"{name} is missing"
    except OSError as error:
        reason = f"{name} cannot be read ({error.strerror})"
    except (ValueError, TypeError):
        reason = f"{name} is damaged"
    return Change(f"{reason}, so what the run was begun with is not known", None, None)


def provenance_of(session: Session) -> Provenance:
    """What the session's result depends on, as things are now."""
    settings = session.settings
    libraries = [*DECIDING_LIBRARIES, *CHECKED_LIBRARIES]
    if settings.optim in OPTIMIZER_LIBRARIES:
        libraries.append(OPTIMIZER_LIBRARIES[settings.optim])
    run_files = (session.run.config_yaml, session.run.plan_json)
    values: dict[str, Any] = asdict(settings)
    return Provenance(
        settings={name: _as_json(value) for name, value in values.items()},
        files={file.name: sha256_of(file) for file in run_files if file.is_file()},
        model_files=session.materials.model_digests.by_name(),
        rows=session.rows.digest,
        device=device_name(session.materials.device),
        num_threads=torch.get_num_threads(),
        libraries={name: _version(name) for name in libraries},
        python=platform.python_version(),
    )


def has_planned_rows(session: Session) -> bool:
    planned_digest = Facts().adding(session.plan.facts).value("rows.digest")
    return session.rows.digest == planned_digest


def changes(
    then: Provenance, now: Provenance, *, compares_num_threads: bool = True
) -> list[Change]:
    """What is another; that which may change the result comes first.

    Without `compares_num_threads` a CPU is the same with any number of them.
    """
    found = [*_changed_settings(then, now), *_changed_libraries(then, now)]
    for name in sorted(then.model_files.keys() | now.model_files.keys()):
        if then.model_files.get(name) != now.model_files.get(name):
            found.append(Change(f"the model's file {name} has another content", None, None))
    if then.rows != now.rows:
        found.append(Change(OTHER_ROWS, None, None))
    devices = [then.device, now.device]
    if not compares_num_threads:
        devices = [without_num_threads(device) for device in devices]
    if devices[0] != devices[1]:
        found.append(Change("the device", then.device, now.device))
    if then.python != now.python:
        found.append(Change("Python", then.python, now.python, is_harmless=True))
    for name in sorted(then.files):
        if then.files[name] != now.files.get(name):
            found.append(Change(f"{name} is not as the run wrote it", None, None, is_harmless=True))
    return sorted(found, key=lambda change: change.is_harmless)


def _changed_settings(then: Provenance, now: Provenance) -> Iterator[Change]:
    for name in sorted(then.settings.keys() | now.settings.keys()):
        before, after = then.settings.get(name), now.settings.get(name)
        if before != after:
            yield Change(name, before, after, is_harmless=name in RECORDING_SETTINGS)


def _changed_libraries(then: Provenance, now: Provenance) -> Iterator[Change]:
    for name in sorted(then.libraries.keys() | now.libraries.keys()):
        before, after = then.libraries.get(name), now.libraries.get(name)
        if before != after:
            yield Change(name, before, after, is_harmless=name in CHECKED_LIBRARIES)


def refused(run: RunFolder, found: Sequence[Change]) -> TrimtabError:
    """The error for changes after which the result could not be the same."""
    told = "; ".join(map(str, found))
    kind = DataError if any(change.what == OTHER_ROWS for change in found) else ConfigError
    return kind(
        f"the run would not come to the result that it was begun for: {told}.",
        where=str(run.root),
        hint="Put it back as it was, or go on all the same with: "
        f"trimtab resume {run.root} --allow-changed",
    )


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
