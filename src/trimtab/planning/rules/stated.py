"""Values that need no rule: what was written or found, and house defaults with their reason."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.hyperparameters.units import format_bytes, parse_bytes
from trimtab.planning.decision import Decision
from trimtab.planning.device_sheets import is_elsewhere
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, counted, decision, percent

MEMORY_KEPT_FREE = 0.1
_DEFAULTS: Mapping[str, str] = {
    "method": "adapters train in less memory, and match full fine-tuning on small and medium data "
    "(LoRA Without Regret, 2025)",
    "trust_remote_code": "the model's own code does not run",
    "dataset_split": "the split that hub datasets train on; files have none",
    "on_bad_row": "a row that cannot be read is told, not passed over",
    "on_loss_spike": "a run whose loss jumps is looked at before it costs more",
    "seed": "any seed is as good; it is kept so that the run can be repeated",
    "save_total_limit": "the latest and one before it, beside the best",
    "logging_steps": "metrics.jsonl has every update anyway",
    "report_to": "nothing is sent anywhere unasked; metrics.jsonl has everything",
    "report_samples": "enough to see a change by eye",
    "max_new_tokens": "enough to tell answers apart",
}


def decide_stated(
    resolved: ResolvedConfig, facts: Facts, output_dir: str, num_ranks: int = 1
) -> Ruling:
    """All hyperparameters that no other rule is about."""
    config = resolved.config
    values = dict(config)
    plain = tuple(
        decision(
            resolved,
            name,
            values[name],
            "default",
            "" if resolved.is_set(name) else because,
        )
        for name, because in _DEFAULTS.items()
    )
    columns = "the columns bear the format's own names"
    by_format = tuple(_format_switch(resolved, facts, name) for name in _FORMATS_OF)
    required = tuple(decision(resolved, name, values[name], "user", "") for name in _REQUIRED)
    data_seed = config.seed if config.data_seed == "auto" else config.data_seed
    found = (
        decision(
            resolved,
            "dataset_columns",
            dict(config.dataset_columns),
            "default",
            "" if config.dataset_columns else columns,
        ),
        decision(
            resolved,
            "dataset_format",
            facts.text("data.format"),
            "measured",
            facts.text("data.format_because"),
            facts=("data.format",),
        ),
        _chat_template(resolved, facts),
        _pad_token(resolved, facts),
        _device(resolved, facts),
        _memory_limit(resolved, facts, num_ranks),
        decision(
            resolved,
            "output_dir",
            output_dir,
            "rule",
            "" if config.output_dir != "auto" else "a free name under runs/",
        ),
        decision(
            resolved,
            "data_seed",
            data_seed,
            "rule",
            "the value of seed" if config.data_seed == "auto" else "",
        ),
    )
    return Ruling(
        (*required, *plain, *by_format, *found),
        (*_memory_warnings(resolved, facts), *_data_warnings(resolved, facts)),
    )


_REQUIRED = ("model", "dataset")
_FORMATS_OF: Mapping[str, tuple[str, ...]] = {
    "dataset_text_field": ("text",),
    "completion_only_loss": ("prompt_completion", "alpaca"),
    "assistant_only_loss": ("messages", "sharegpt"),
}
"""The row formats that each of these is about."""


def _format_switch(resolved: ResolvedConfig, facts: Facts, name: str) -> Decision:
    value = dict(resolved.config)[name]
    num_trained = facts.integer("data.num_trainable_tokens")
    share = percent(num_trained, facts.integer("data.num_tokens"))
    if facts.text("data.format") not in _FORMATS_OF[name]:
        because = f"not used: rows are {facts.text('data.format')}"
    elif name == "dataset_text_field":
        is_used = _text_mapped_elsewhere(resolved) is None
        because = (
            "the column of the rows' text" if is_used else "not used: dataset_columns maps text"
        )
    else:
        because = f"{share} of the tokens are trained on"
    ids = ("data.format", "data.num_trainable_tokens", "data.num_tokens")
    return decision(resolved, name, value, "default", because, facts=ids)


def _text_mapped_elsewhere(resolved: ResolvedConfig) -> str | None:
    """The column that `dataset_columns` takes text from, where that is not `dataset_text_field`."""
    config = resolved.config
    mapped = config.dataset_columns.get("text")
    return None if mapped == config.dataset_text_field else mapped


def ranks_on_one_memory(facts: Facts, num_ranks: int) -> int:
    """How many ranks share the device's memory: all on a CPU, each has a card of its own else."""
    return num_ranks if facts.text("device.kind") == "cpu" else 1


def memory_limit_bytes(resolved: ResolvedConfig, facts: Facts, num_ranks: int = 1) -> int:
    """One rank's part of what is free on the device, less a tenth, unless the user says.

    Never more than the device has.
    """
    asked = resolved.config.memory_limit
    if asked == "auto":
        available = facts.integer("device.memory_available_bytes")
        limit = available - int(MEMORY_KEPT_FREE * available)
    else:
        limit = min(parse_bytes(asked), facts.integer("device.memory_bytes"))
    return limit // ranks_on_one_memory(facts, num_ranks)


def _memory_limit(resolved: ResolvedConfig, facts: Facts, num_ranks: int) -> Decision:
    available = facts.integer("device.memory_available_bytes")
    total = facts.integer("device.memory_bytes")
    elsewhere = is_elsewhere(facts)
    if elsewhere:
        because = f"{format_bytes(total)} by its datasheet"
    else:
        because = f"{format_bytes(available)} of {format_bytes(total)} is free"
    limit = memory_limit_bytes(resolved, facts, num_ranks)
    num_sharing = ranks_on_one_memory(facts, num_ranks)
    if resolved.config.memory_limit == "auto":
        because += ", less a tenth"
    elif num_sharing > 1:
        because += f"; {format_bytes(limit * num_sharing)}"
    if num_sharing > 1:
        because += f", shared by {num_ranks} ranks"
    return decision(
        resolved,
        "memory_limit",
        limit,
        "rule" if elsewhere else "measured",
        because,
        facts=("device.memory_available_bytes", "device.memory_bytes"),
        limits="what is free when the plan is made",
    )


def _memory_warnings(resolved: ResolvedConfig, facts: Facts) -> tuple[str, ...]:
    asked, total = resolved.config.memory_limit, facts.integer("device.memory_bytes")
    if asked == "auto" or parse_bytes(asked) <= total:
        return ()
    return (
        f"memory_limit {format_bytes(parse_bytes(asked))} is over the {format_bytes(total)} that "
        "the device has, which is the limit then.",
    )


def _device(resolved: ResolvedConfig, facts: Facts) -> Decision:
    asked = resolved.config.device
    kind, name = facts.text("device.kind"), facts.text("device.name")
    elsewhere = is_elsewhere(facts)
    because = f"{name}, known by its datasheet alone" if elsewhere else name
    if asked == "auto" and kind == "cpu":
        because = f"{name}; no CUDA device is there"
    value = kind if asked == "auto" else asked
    return decision(
        resolved,
        "device",
        value,
        "rule" if elsewhere else "measured",
        because,
        facts=("device.kind", "device.name"),
    )


def _pad_token(resolved: ResolvedConfig, facts: Facts) -> Decision:
    return decision(
        resolved,
        "pad_token",
        facts.text("model.pad_token"),
        "measured",
        facts.text("model.pad_token_because"),
        facts=("model.pad_token", "model.pad_token_id"),
    )


def _chat_template(resolved: ResolvedConfig, facts: Facts) -> Decision:
    """`model` and `plain` name the two templates that `auto` can come to."""
    asked = resolved.config.chat_template
    if asked != "auto":
        value, because = asked, facts.text("data.template_because")
    elif not facts.value("data.templated"):
        value, because = "none", f"{facts.text('data.format')} rows are taken as they stand"
    else:
        value = "model" if facts.value("model.chat_template") else "plain"
        because = facts.text("data.template_because")
    return decision(
        resolved, "chat_template", value, "measured", because, facts=("data.template_because",)
    )


def _is_template_unused(resolved: ResolvedConfig, facts: Facts) -> bool:
    asked = resolved.config.chat_template
    return asked not in {"auto", "none"} and not facts.value("data.templated")


def _data_warnings(resolved: ResolvedConfig, facts: Facts) -> tuple[str, ...]:
    row_format = facts.text("data.format")
    warnings = [
        f"{name} has no effect: rows are {row_format}."
        for name, formats in _FORMATS_OF.items()
        if resolved.is_set(name) and row_format not in formats
    ]
    mapped = _text_mapped_elsewhere(resolved)
    if mapped is not None and resolved.is_set("dataset_text_field"):
        warnings.append(f"dataset_text_field has no effect: dataset_columns maps text to {mapped}.")
    if _is_template_unused(resolved, facts):
        warnings.append(f"chat_template has no effect: {row_format} rows are taken as they stand.")
    num_bad = facts.integer("data.num_bad_rows")
    if num_bad:
        are = "is" if num_bad == 1 else "are"
        warnings.append(f"{counted(num_bad, 'row')} cannot be trained on and {are} left out.")
    num_copies = facts.integer("data.num_duplicate_rows")
    if num_copies:
        warnings.append(
            f"{num_copies:,} of {counted(facts.integer('data.num_rows'), 'row')} have the tokens "
            "of an earlier one."
        )
    return tuple(warnings)
