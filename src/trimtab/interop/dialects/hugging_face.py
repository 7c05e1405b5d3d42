"""What transformers' TrainingArguments say; TRL and LLaMA-Factory build on them.

After the fields of `transformers.TrainingArguments` (versions 4 and 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from trimtab.interop.translating import (
    Dialect,
    Difference,
    Field,
    Loss,
    Reading,
    Values,
    as_bool,
    harmless,
    lossy,
    same,
    truth,
)
from trimtab.models.light_tokenizer import declared_special_tokens
from trimtab.planning.settings import LION_BETA2

SPEED: Final = harmless("a matter of speed or memory; decided here by the plan")
LOGGING: Final = harmless("how a run is logged; every update is in metrics.jsonl")
SAVING: Final = harmless("how a run is saved; checkpoints are whole and verified")
LOADING: Final = harmless("how rows are fed; they are tokenized before the run")
SEVERAL_DEVICES: Final = harmless("how a run is spread over devices; the recipe is the same on one")
HUB: Final = harmless("uploads; nothing is uploaded by training")
EVALUATING: Final = harmless("how the held-out rows are scored; the loss is measured here")
NO_PART: Final = harmless("the commands have words of their own for it")


def number_of(value: Any) -> float | None:
    """A finite number, also one that came as text; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = value if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


_MODEL_KEYS: Final = ("model_name_or_path", "base_model")


def own_tokens(reading: Reading, tokens: Mapping[str, Any]) -> Values:
    """They ask for nothing.

    Raises Loss where `tokens`, by their roles, are not known to be the tokenizer's.
    """
    named = next((reading.left[key].value for key in _MODEL_KEYS if reading.has(key)), None)
    model = reading.overrides.get("model", named)
    own = None if model is None else declared_special_tokens(str(model))
    if own is None:
        why = f"the tokenizer's own {', '.join(tokens)} may be another"
        where = "no model is named" if model is None else f"{model} is not here to be asked"
        raise Loss(f"{why}, and {where}", changes_result=True)
    others = [role for role, token in tokens.items() if own.get(role) != token]
    if others:
        raise Loss(f"the tokenizer's own {', '.join(others)} stay", changes_result=True)
    return {}


def take_length(reading: Reading) -> None:
    """`max_steps` wins over epochs in transformers, and is unset where it is not positive."""
    steps = reading.take("max_steps")
    epochs = reading.left.get("num_train_epochs")
    if steps is None or (number_of(steps.value) or 0) <= 0:
        return
    reading.apply(steps, same("max_steps"))
    if epochs is not None and epochs.value is not None:
        del reading.left["num_train_epochs"]
        reading.lose(epochs, Loss("max_steps wins where both are set", changes_result=False))


def take_warmup(reading: Reading) -> None:
    """`warmup_steps` wins over a ratio where it is positive."""
    steps, ratio = reading.take("warmup_steps"), reading.take("warmup_ratio")
    if steps is not None and (number_of(steps.value) or 0) > 0:
        reading.apply(steps, same("warmup_steps"))
        if ratio is not None:
            why = "warmup_steps wins where both are set"
            reading.lose(ratio, Loss(why, changes_result=False))
    elif ratio is not None:
        reading.apply(ratio, same("warmup_ratio"))
    elif steps is not None:
        reading.apply(steps, same("warmup_steps"))


def take_precision(reading: Reading, *switches: tuple[str, str], otherwise: str) -> None:
    """The first switch that is on names the number format; all off is fp32.

    otherwise: the format where switches are off and none of them is bf16's.
    """
    settings = [(one, kind) for name, kind in switches if (one := reading.take(name)) is not None]
    for setting, kind in settings:
        value = as_bool(setting.value)
        if value == "auto":
            return reading.carry(setting, {"precision": "auto"})
        if value is True or value == "full":
            return reading.carry(setting, {"precision": kind})
    off = [setting for setting, _ in settings if as_bool(setting.value) is False]
    if off:
        names_bf16 = any(kind == "bf16" for _, kind in settings)
        reading.carry(off[0], {"precision": "fp32" if names_bf16 else otherwise})
    return None


def take_evaluation(reading: Reading) -> None:
    """Whether and how often: an interval counts only where evaluation goes by steps."""
    take_eval_strategy(reading)
    steps = reading.take("eval_steps")
    if steps is not None:
        reading.apply(steps, _interval("eval_steps"))


def take_eval_strategy(reading: Reading) -> None:
    """Under its older name too; a switch that is off, which YAML 1.1 reads in `no`, is `no`."""
    for name in ("eval_strategy", "evaluation_strategy"):
        strategy = reading.take(name)
        if strategy is not None:
            reading.apply(strategy, lambda value: {"eval_strategy": as_bool(value) or "no"})


def take_saving(reading: Reading) -> None:
    strategy, steps = reading.take("save_strategy"), reading.take("save_steps")
    limit = reading.take("save_total_limit")
    if strategy is not None and as_bool(strategy.value) != "steps":
        reading.apply(strategy, SAVING)
        steps = None
    if steps is not None:
        reading.apply(steps, _interval("save_steps"))
    if limit is not None:
        reading.apply(limit, save_total_limit)


def save_total_limit(value: Any) -> Values:
    number = number_of(value)
    if number is not None and number <= 0:
        raise Loss("every checkpoint is kept there, and a few are here", changes_result=False)
    return same("save_total_limit")(value)


def _interval(target: str) -> Field:
    """Updates between two of something, or a share of the run; transformers takes 1.0 for 1."""

    def carry(value: Any) -> Values:
        number = number_of(value)
        if number is None or number <= 0:
            raise Loss("not a positive number of updates", changes_result=False)
        return {target: int(number) if number >= 1 else number}

    return carry


def shared(reading: Reading, *, without_bf16: str = "fp32") -> None:
    """What several keys of TrainingArguments say together.

    without_bf16: the number format where `fp16` is off and `bf16` is left out.
    """
    take_length(reading)
    take_warmup(reading)
    take_precision(reading, ("bf16", "bf16"), ("fp16", "fp16"), otherwise=without_bf16)
    take_evaluation(reading)
    take_saving(reading)
    take_optimizer(reading)
    reading.differences.append(EMBEDDINGS_DECAY)


EMBEDDINGS_DECAY: Final = Difference(
    "weight_decay also pulls embeddings to zero there, and here it leaves them out",
    about=("weight_decay",),
    applies=lambda config: config.method == "full" and config.weight_decay > 0,
)


def report_to(value: Any) -> Values:
    """One tracker of those that are fed here; `all` means what is installed there."""
    names = [value] if isinstance(value, str) else value
    try:
        return same("report_to")(names)
    except Loss as loss:
        raise Loss(
            "metrics go to one tracker, and are in metrics.jsonl", changes_result=False
        ) from loss


def take_optimizer(reading: Reading, key: str = "optim") -> None:
    """The optimizer; Lion's second decay rate is a key of theirs and fixed here."""
    setting = reading.take(key)
    if setting is None:
        return
    given = reading.left.get("adam_beta2")
    beta2 = None if given is None else number_of(given.value)
    reading.apply(setting, lambda value: _optimizer(value, 0.999 if beta2 is None else beta2))


def _optimizer(value: Any, beta2: float) -> Values:
    """Paging moves an optimizer's state in memory and changes no number; another 8-bit format is
    nearest to ours."""
    if value in ("adamw_torch_8bit", "adamw_torch_4bit"):
        raise Loss(
            "states are bitsandbytes' 8-bit ones",
            changes_result=True,
            instead={"optim": "adamw_8bit"},
        )
    name = value
    if isinstance(value, str) and value.startswith("paged_"):
        name = value.removeprefix("paged_").removesuffix("_32bit")
    values = same("optim")(name)
    if values["optim"] == "adafactor":
        raise Loss(ADAFACTORS_RATE, changes_result=True, instead=values)
    if values["optim"] == "lion" and beta2 != LION_BETA2:
        why = f"its second decay rate is adam_beta2 there, {beta2:g}, and {LION_BETA2} here"
        raise Loss(why, changes_result=True, instead=values)
    return values


ADAFACTORS_RATE: Final = (
    "its learning rate is absolute there, and here a share of each weight's root mean square"
)


def _adafactor(value: Any) -> Values:
    return _optimizer("adafactor", LION_BETA2) if truth(value) else {}


def optim_args(value: Any) -> Values:
    raise Loss("arguments of the optimizer beyond the usual ones", changes_result=True)


def sampling(value: Any) -> Values:
    if value == "random":
        return {}
    raise Loss("rows come in a seeded random order here", changes_result=False)


def parallel_precision(value: Any) -> Values:
    """`full` evaluation in half precision rounds the held-out loss and nothing else."""
    raise Loss("the held-out loss is computed in `precision`", changes_result=False)


def use_cpu(value: Any) -> Values:
    return {"device": "cpu"} if truth(value) else {}


_SAME: Final = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "seed",
    "data_seed",
    "output_dir",
)
_LOGGED: Final = (
    "logging_dir logging_strategy logging_first_step log_on_each_node logging_nan_inf_filter "
    "include_num_input_tokens_seen include_tokens_per_second log_level log_level_replica "
    "disable_tqdm run_name project trackio_space_id trackio_bucket_id trackio_static_space_id "
    "include_for_metrics skip_memory_metrics debug logging_steps"
)
_EVALUATED: Final = (
    "eval_delay prediction_loss_only eval_on_start eval_do_concat_batches do_eval "
    "eval_use_gather_object eval_accumulation_steps batch_eval_metrics metric_for_best_model "
    "greater_is_better load_best_model_at_end include_inputs_for_metrics predict_with_generate "
    "generation_max_length generation_num_beams generation_config label_names"
)
_FASTER: Final = (
    "activation_checkpointing_kwargs gradient_checkpointing_kwargs tf32 torch_compile "
    "torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache "
    "torch_empty_cache_steps auto_find_batch_size half_precision_backend jit_mode_eval "
    "torchdynamo fp16_backend fp16_opt_level use_ipex average_tokens_across_devices "
    "full_determinism past_index"
)
_SPREAD: Final = (
    "deepspeed parallelism_config accelerator_config local_rank tpu_num_cores tpu_metrics_debug "
    "_n_gpu use_mps_device split_batches dispatch_batches mp_parameters"
)
_SAVED: Final = (
    "save_only_model save_on_each_node enable_jit_checkpoint save_safetensors "
    "resume_from_checkpoint ignore_data_skip restore_callback_states_from_checkpoint "
    "overwrite_output_dir"
)


def _all(names: str, field: Field) -> dict[str, Field]:
    return dict.fromkeys(names.split(), field)


FIELDS: Final[Mapping[str, Field]] = {
    **{name: same(name) for name in _SAME},
    **_all(_LOGGED, LOGGING),
    **_all(_EVALUATED, EVALUATING),
    **_all(_FASTER, SPEED),
    **_all(_SPREAD, SEVERAL_DEVICES),
    **_all(_SAVED, SAVING),
    **_all("do_train do_predict", NO_PART),
    "gradient_checkpointing": same("activation_checkpointing"),
    "activation_checkpointing": same("activation_checkpointing"),
    "logging_steps": same("logging_steps"),
    "report_to": report_to,
    "push_to_hub": HUB,
    "use_cpu": use_cpu,
    "no_cuda": use_cpu,
    "optim_args": optim_args,
    "optim_target_modules": optim_args,
    "adafactor": _adafactor,
    "bf16_full_eval": parallel_precision,
    "fp16_full_eval": parallel_precision,
    "label_smoothing_factor": lossy("the loss has no label smoothing", 0, 0.0, about=()),
    "neftune_noise_alpha": lossy("no noise is added to embeddings"),
    "dataloader_drop_last": lossy("an epoch's last update has what is left of it", False),
    "train_sampling_strategy": sampling,
    "group_by_length": harmless("rows come in a seeded random order here"),
    "length_column_name": LOADING,
    "remove_unused_columns": LOADING,
}
PREFIXES: Final[Mapping[str, Field]] = {
    "dataloader_": LOADING,
    "ddp_": SEVERAL_DEVICES,
    "fsdp": SEVERAL_DEVICES,
    "hub_": HUB,
    "push_to_hub_": HUB,
    "ray_": SEVERAL_DEVICES,
}
DEFAULTS: Final[Mapping[str, Any]] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
    "learning_rate": 5e-5,
    "warmup_steps": 0,
    "eval_dataset": "none",
    "method": "full",
}

TRANSFORMERS: Final = Dialect(
    name="transformers",
    title="transformers' TrainingArguments",
    markers=frozenset(
        {
            "accelerator_config",
            "logging_dir",
            "disable_tqdm",
            "dataloader_num_workers",
            "dataloader_drop_last",
            "ddp_backend",
            "label_smoothing_factor",
            "no_cuda",
            "remove_unused_columns",
            "save_safetensors",
            "torch_compile",
        }
    ),
    begin=shared,
    fields=FIELDS,
    prefixes=PREFIXES,
    defaults={**DEFAULTS, "precision": "fp32"},
)
