"""A plan in another tool's names, every `auto` resolved; what has no name there is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from trimtab.hyperparameters.catalogue import catalogue
from trimtab.interop.dialects.hugging_face import ADAFACTORS_RATE, EMBEDDINGS_DECAY
from trimtab.interop.translating import Difference, NotCarried
from trimtab.planning.plan import Plan
from trimtab.planning.settings import LION_BETA2

FILE_FORMATS_BY_SUFFIX: Final = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
"""What `datasets` calls the reader of a local file."""
FORMATS_OF_SWITCHES: Final = {
    "completion_only_loss": ("prompt_completion", "alpaca"),
    "assistant_only_loss": ("messages", "sharegpt"),
}


@dataclass
class Writing:
    """A plan on its way to another tool: its values, the keys written so far, and what is left.

    paths: absolute paths of the files that the plan names, by hyperparameter.
    """

    values: Mapping[str, Any]
    paths: Mapping[str, str]
    keys: dict[str, Any] = field(default_factory=dict)
    not_carried: list[NotCarried] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    told: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, plan: Plan) -> Writing:
        return cls({one.name: one.value for one in plan.decisions}, plan.paths)

    def put(self, name: str, key: str, value: Any = None) -> None:
        """Write a hyperparameter under their key; its own value unless another says the same."""
        self.keys[key] = self.values[name] if value is None else value
        self.told.add(name)

    def told_with(self, *names: str) -> None:
        """These are said by keys that are written for others."""
        self.told.update(names)

    def leave(self, name: str, why: str, *, changes_result: bool) -> None:
        if name not in self.told:
            self.not_carried.append(NotCarried(name, self.values[name], why, changes_result))
            self.told.add(name)

    def located(self, name: str) -> str:
        """A file's absolute path, or the hub's name."""
        return self.paths.get(name, str(self.values[name]))

    def leave_what_is_ours(self) -> None:
        """What only a run of trimtab's has, and does not change the weights that come out."""
        for name, why in _OURS.items():
            self.leave(name, why, changes_result=False)

    @property
    def untold(self) -> list[str]:
        """Hyperparameters that were neither written nor left."""
        return [name for name in catalogue() if name not in self.told]


_OURS: Final = {
    "on_bad_row": "rows are checked here",
    "on_loss_spike": "the guard is trimtab's",
    "memory_limit": "a limit of the plan's",
    "device": "devices are chosen by how the tool is started",
    "parallelism": "shards are chosen by how the tool is started",
    "report_samples": "of trimtab's page",
    "max_new_tokens": "of trimtab's page",
    "padding": "the loss is the same however rows are padded",
    "padding_side": "the loss is the same on either side",
    "pad_to_multiple_of": "the loss is the same however rows are padded",
    "global_batch_size": "micro-batch × accumulation × devices",
    "warmup_ratio": "written as updates",
    "per_device_eval_batch_size": "the held-out loss does not depend on it",
}


def put_length(writing: Writing, *, epochs: str = "num_train_epochs") -> None:
    """Epochs, or updates where those were asked for: never both, which tools read differently."""
    if writing.values["max_steps"] == -1:
        writing.put("num_train_epochs", epochs)
        writing.told_with("max_steps")
    else:
        writing.put("max_steps", "max_steps")
        writing.told_with("num_train_epochs")


def put_precision(writing: Writing) -> None:
    writing.put("precision", "bf16", writing.values["precision"] == "bf16")
    writing.put("precision", "fp16", writing.values["precision"] == "fp16")


def put_checkpointing(writing: Writing, key: str = "gradient_checkpointing") -> None:
    """Recomputation of every k-th layer is that of every layer there: slower, the same result."""
    value = writing.values["activation_checkpointing"]
    if isinstance(value, int):
        why = f"every {value}. layer is recomputed here, every layer there"
        writing.leave("activation_checkpointing", why, changes_result=False)
    writing.put("activation_checkpointing", key, value != "off")


def put_cadence(writing: Writing, *, has_held_out: bool) -> None:
    """Intervals in updates; 0 is never."""
    values = writing.values
    if has_held_out and values["eval_strategy"] != "no":
        writing.put("eval_strategy", "eval_strategy")
        if values["eval_steps"]:
            writing.put("eval_steps", "eval_steps")
    elif values["eval_strategy"] == "no":
        writing.put("eval_strategy", "eval_strategy")
    why = "nothing is held out there"
    writing.leave("eval_strategy", why, changes_result=False)
    writing.leave("eval_steps", why, changes_result=False)
    if values["save_steps"]:
        writing.put("save_steps", "save_steps")
    writing.leave("save_steps", "no checkpoint is taken before the end", changes_result=False)
    writing.put("save_total_limit", "save_total_limit")
    writing.put("logging_steps", "logging_steps")


def put_optimizer(
    writing: Writing, key: str, names: Mapping[str, str], schedulers: Sequence[str], scheduler: str
) -> None:
    """Optimizer and schedule, as far as the tool has them."""
    optim = writing.values["optim"]
    if optim in names:
        writing.put("optim", key, names[optim])
    why = ADAFACTORS_RATE if optim == "adafactor" else f"{optim} has no name there"
    writing.leave("optim", why, changes_result=True)
    if optim == "lion":
        writing.put("adam_beta2", "adam_beta2", LION_BETA2)
    for name in ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"):
        if name not in writing.told:
            writing.put(name, name)
    if writing.values["method"] == "full" and writing.values["weight_decay"] > 0:
        writing.differences.append(EMBEDDINGS_DECAY)
    writing.put("max_grad_norm", "max_grad_norm")
    writing.put("warmup_steps", "warmup_steps")
    kind = writing.values["lr_scheduler_type"]
    if kind in schedulers:
        writing.put("lr_scheduler_type", scheduler)
    writing.leave("lr_scheduler_type", f"{kind} has no name there", changes_result=True)
    if writing.values["lr_scheduler_kwargs"]:
        writing.put(
            "lr_scheduler_kwargs",
            "lr_scheduler_kwargs",
            dict(writing.values["lr_scheduler_kwargs"]),
        )
    writing.told_with("lr_scheduler_kwargs")


def put_adapter(writing: Writing, keys: Mapping[str, str], all_linear: str) -> None:
    """LoRA's values where there is an adapter; they say nothing without one."""
    targets = writing.values["target_modules"]
    if writing.values["method"] == "lora":
        for name in ("lora_r", "lora_alpha", "lora_dropout"):
            value = writing.values[name]
            is_whole = isinstance(value, float) and value.is_integer() and name != "lora_dropout"
            writing.put(name, keys[name], int(value) if is_whole else value)
        is_all = targets == "all-linear"
        writing.put("target_modules", keys["target_modules"], all_linear if is_all else [*targets])
    writing.told_with("lora_r", "lora_alpha", "lora_dropout", "target_modules")


def put_seeds(writing: Writing, tool: str) -> None:
    """The seed, and a folder beside the run's own, which another tool would write over."""
    writing.put("seed", "seed")
    writing.put("output_dir", "output_dir", f"{writing.values['output_dir']}-{tool}")


def local_file(path: str) -> tuple[str, str] | None:
    """A local file's reader and path, as `datasets` takes them; None for a hub name or a folder."""
    file = Path(path)
    if file.suffix in FILE_FORMATS_BY_SUFFIX and file.is_file():
        return FILE_FORMATS_BY_SUFFIX[file.suffix], str(file)
    return None


Write = Callable[[Writing], None]
