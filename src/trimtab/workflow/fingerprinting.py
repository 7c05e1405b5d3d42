"""The digests of what a measurement depends on, read off files and versions in milliseconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trimtab.data.streaming import is_streamed
from trimtab.errors import ConfigError, DataError
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.models.source import local_files, local_template_files
from trimtab.planning.fingerprint import Fingerprint, Part, digest
from trimtab.planning.questions import (
    DataQuestion,
    DeviceQuestion,
    ModelQuestion,
    NoiseScaleQuestion,
    PrecisionQuestion,
    Question,
    RateRangeQuestion,
    RunQuestion,
    TrainingRowsQuestion,
    TrialsQuestion,
)
from trimtab.probes.device_identity import DeviceIdentity, identify_device
from trimtab.workflow.training_rows import separate_eval_dataset

LIBRARIES = ("trimtab", "torch", "transformers", "peft", "tokenizers", "numpy")
MEASURING_ROOMS = ("data", "models", "engine", "planning", "probes", "workflow")
ALLOCATOR_VARIABLES = (
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
    "LRU_CACHE_CAPACITY",
)
"""What decides how much memory a process holds for the same tensors."""
MAX_CONTENT_BYTES = 64_000
"""Up to this size a JSON file or a template is taken by its content, beyond it by size and time."""
MODEL_SETTINGS = ("trust_remote_code", "pad_token", "padding", "packing")
DATA_SETTINGS = (
    "trust_remote_code",
    "dataset_split",
    "dataset_format",
    "dataset_columns",
    "dataset_text_field",
    "completion_only_loss",
    "assistant_only_loss",
    "on_bad_row",
    "chat_template",
)
DATE_FUNCTION = "strftime_now"
"""By this a chat template writes the date, as the templates of Llama 3 do."""
_NOISE_PARTS: tuple[Part, ...] = ("model", "data", "settings", "method", "libraries")
"""A gradient's noise, and what else a run leaves behind, is that of the model on these rows."""
_PARTS: Mapping[type[Question], tuple[Part, ...]] = {
    DeviceQuestion: ("device", "libraries"),
    ModelQuestion: ("model", "settings", "libraries"),
    DataQuestion: ("model", "data", "settings", "libraries"),
    TrainingRowsQuestion: ("model", "data", "settings", "libraries"),
    RunQuestion: ("model", "data", "settings", "libraries"),
    TrialsQuestion: ("model", "data", "settings", "device", "allocator", "libraries"),
    PrecisionQuestion: ("model", "data", "settings", "device", "libraries"),
    RateRangeQuestion: ("model", "data", "settings", "device", "libraries"),
    NoiseScaleQuestion: _NOISE_PARTS,
}


def identity_of(config: TrainingConfig) -> list[Any]:
    """What a search or a study is of: the configuration but for its folder, the model, the rows."""
    settings = config.model_dump(mode="json", exclude={"output_dir"})
    return [settings, dict(Fingerprints(config).of_run_facts() or {})]


@dataclass(frozen=True)
class Fingerprints:
    """The digests of one configuration's parts; None where a part cannot be told from here.

    That is so for a model that is still to be fetched, for rows of a hub dataset, whose files are
    not ours to look at, and for a device that its driver's own tool does not show.
    """

    config: TrainingConfig

    @cached_property
    def identity(self) -> DeviceIdentity | None:
        try:
            return identify_device(self.config.device)
        except ConfigError:
            return None

    def of_question(self, question: Question) -> Fingerprint | None:
        """The parts that the question's answer depends on."""
        return self._of(_PARTS[type(question)], question)

    def of_run_facts(self) -> Fingerprint | None:
        """The parts that facts which a run leaves behind depend on."""
        return self._of(_NOISE_PARTS, None)

    def _of(self, parts: tuple[Part, ...], question: Question | None) -> Fingerprint | None:
        found: dict[str, str] = {}
        for part in parts:
            part_digest = self._part(part, question)
            if part_digest is None:
                return None
            found[part] = part_digest
        return found

    def _part(self, part: Part, question: Question | None) -> str | None:
        match part:
            case "model":
                return self._model
            case "data":
                return self._data
            case "method":
                return digest(self.config.method)
            case "settings":
                return self._settings(question)
            case "device":
                identity = self.identity
                if identity is None:
                    return None
                return digest([identity.name, identity.num_threads, identity.memory_bytes])
            case "allocator":
                return digest([os.environ.get(name) for name in ALLOCATOR_VARIABLES])
            case "libraries":
                return _libraries()

    @property
    def _model(self) -> str | None:
        files = local_files(self.config.model)
        return None if files is None else digest([_stamp(file) for file in files])

    @cached_property
    def _data(self) -> str | None:
        stamps = []
        for name in dataset_names(self.config):
            path = Path(name).expanduser()
            if not path.exists():
                return None
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            stamps.append([_size_and_time(file) for file in files if file.is_file()])
        return digest(stamps)

    @cached_property
    def _is_streamed(self) -> bool:
        """Whether rows are estimated, as too many, rather than counted."""
        try:
            return is_streamed(self.config)
        except DataError:
            return False

    def _settings(self, question: Question | None) -> str:
        """Of rows whose template writes the date, the date too.

        Updates that were measured hold on: their sizes are recorded with them.
        """
        if isinstance(question, ModelQuestion):
            return digest(self.config.model_dump(mode="json", include=set(MODEL_SETTINGS)))
        values = self.config.model_dump(mode="json", include=set(DATA_SETTINGS))
        values["streamed"] = self._is_streamed
        template = Path(self.config.chat_template).expanduser()
        if template.is_file():
            values["chat_template"] = _stamp(template)
        is_of_rows = isinstance(question, DataQuestion | TrainingRowsQuestion | RunQuestion)
        if is_of_rows and self._has_dated_template(template):
            values["date"] = _today().isoformat()
        return digest(values)

    def _has_dated_template(self, template: Path) -> bool:
        files = [template] if template.is_file() else local_template_files(self.config.model)
        return any(DATE_FUNCTION in _text(file) for file in files)


def subject_of(config: TrainingConfig, question: Question) -> str:
    """A digest of what is asked, about which model and data: the same whatever these hold now."""
    model, data = _named(config.model), [_named(name) for name in dataset_names(config)]
    match question:
        case DeviceQuestion():
            asked: list[Any] = [question.device]
        case ModelQuestion():
            asked = [model]
        case DataQuestion():
            asked = [model, data]
        case TrainingRowsQuestion() | RunQuestion() | TrialsQuestion():
            asked = [model, data, question.key]
        case PrecisionQuestion():
            # How many weights an update is too small for depends on the update's size. The key
            # cannot hold it: the rate follows the batch, which the trials decide after the key.
            settings = question.settings
            update = [settings.learning_rate, settings.weight_decay]
            asked = [model, data, question.key, list(question.precisions), update]
        case RateRangeQuestion():
            asked = [model, data, question.key, list(question.rates)]
        case NoiseScaleQuestion():
            return subject_of_noise_probe(config)
    return digest([type(question).__name__, *asked])


def subject_of_run_facts(config: TrainingConfig) -> str:
    return _subject_of_method("run facts", config)


def subject_of_tune(config: TrainingConfig) -> str:
    return _subject_of_method("tune", config)


def subject_of_noise_probe(config: TrainingConfig) -> str:
    """Without the question's key, so that plans which do not ask recall what was found."""
    return _subject_of_method("noise probe", config)


def subject_of_studies(config: TrainingConfig) -> str:
    return _subject_of_method("studies", config)


def _subject_of_method(name: str, config: TrainingConfig) -> str:
    data = [_named(each) for each in dataset_names(config)]
    return digest([name, _named(config.model), data, config.method])


def dataset_names(config: TrainingConfig) -> tuple[str, ...]:
    """The dataset, and the one to evaluate on where that is another."""
    separate = separate_eval_dataset(config.eval_dataset)
    return (config.dataset,) if separate is None else (config.dataset, separate)


def _named(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _stamp(file: Path) -> list[Any]:
    stat = file.stat()
    if file.suffix in {".json", ".jinja"} and stat.st_size <= MAX_CONTENT_BYTES:
        return [file.name, _text(file)]
    return _size_and_time(file)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="surrogateescape")


def _today() -> date:
    return date.today()


def _size_and_time(file: Path) -> list[Any]:
    stat = file.stat()
    return [file.name, stat.st_size, stat.st_mtime_ns]


@cache
def _libraries() -> str:
    """Versions, and the measuring code itself, which may change under one version."""
    package = Path(__file__).parents[1]
    code: Iterable[Path] = (
        file for room in MEASURING_ROOMS for file in sorted((package / room).rglob("*.py"))
    )
    versions = {name: _version(name) for name in LIBRARIES}
    return digest([sys.version, versions, [_size_and_time(file) for file in code]])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
