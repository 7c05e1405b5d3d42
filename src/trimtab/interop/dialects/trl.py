"""TRL: the fields of SFTConfig, ScriptArguments and ModelConfig in one YAML file.

After `trl/trainer/sft_config.py`, `trl/scripts/utils.py` and `trl/trainer/model_config.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, Final

from trimtab.data.sources import can_have_splits
from trimtab.interop.dialects.hugging_face import (
    DEFAULTS,
    FIELDS,
    LOADING,
    PREFIXES,
    SPEED,
    number_of,
    own_tokens,
    shared,
)
from trimtab.interop.dialects.rows import (
    HELD_OUT_SPLITS,
    VALIDATION_FIRST,
    file_or_path,
    is_held_out_split,
    of_subset,
)
from trimtab.interop.translating import (
    Dialect,
    Difference,
    Loss,
    Reading,
    Values,
    as_bool,
    checked,
    harmless,
    lossy,
    same,
    switch,
    truth,
)

_FP32_WEIGHTS: Final = "the weights that are trained are fp32 here, products are in `precision`"
_FOUR_BIT: Final = "the weights would be trained on in 4 or 8 bits, which is not there"
_PEFTS_OWN: Final = (
    "without lora_target_modules PEFT adapts its own few for the architecture, such as q_proj and "
    "v_proj; --target-modules would settle it"
)


def _begin(reading: Reading) -> None:
    shared(reading, without_bf16="bf16")
    _take_adapter(reading)
    _take_packing(reading)
    _take_datasets(reading)
    reading.differences.append(JOINED_STRINGS)
    length = reading.left.get("max_length")
    if length is not None and length.value is None:
        why = "no row is cut there, and here those over max_length are"
        reading.lose(length, Loss(why, changes_result=True, about=("max_length",)))
    end = reading.take("eos_token")
    if end is not None:
        reading.apply(end, lambda token: own_tokens(reading, {"eos_token": token}))
    env = reading.take("env")
    if env is not None:
        reading.lose(env, Loss("set it in the shell", changes_result=False))


JOINED_STRINGS: Final = Difference(
    "prompt and completion that are strings are joined without a chat template there, and here "
    "they get the model's: --chat-template none joins them as they are",
    about=("chat_template",),
    applies=lambda config: (
        config.dataset_format in ("auto", "prompt_completion") and config.chat_template != "none"
    ),
)


def _take_adapter(reading: Reading) -> None:
    """`use_peft` is what makes the other LoRA keys count."""
    asked = reading.take("use_peft")
    if asked is not None:
        reading.apply(asked, switch({"method": "lora"}, {"method": "full"}))
    for name in ("load_in_4bit", "load_in_8bit"):
        setting = reading.take(name)
        if setting is not None and as_bool(setting.value) is not False:
            reading.lose(setting, Loss(_FOUR_BIT, changes_result=True, about=("method",)))
    scaled = reading.take("use_rslora")
    if asked is None or as_bool(asked.value) is not True:
        for name in [name for name in reading.left if name.startswith("lora_")]:
            setting = reading.take(name)
            if setting is not None:
                reading.lose(setting, Loss("no adapter is asked for", changes_result=False))
        return
    if scaled is not None:
        reading.apply(scaled, lambda value: rank_stabilised(reading, value, "lora_r", 16, 32))
    if not reading.has("lora_dropout"):
        reading.carry(asked, {"lora_dropout": 0.05})
    if not reading.has("lora_target_modules"):
        reading.lose(asked, Loss(_PEFTS_OWN, changes_result=True, about=("target_modules",)))


def rank_stabilised(
    reading: Reading, value: Any, rank_key: str, default_rank: int, default_alpha: float
) -> Values:
    """rsLoRA divides by √rank and not by rank: the same scale is an alpha of √rank times as much
    (2023, arXiv 2312.03732)."""
    if not truth(value):
        return {}
    rank, alpha = default_rank, default_alpha
    if reading.has(rank_key):
        given = checked("lora_r", reading.left[rank_key].value)
        rank = given if isinstance(given, int) else default_rank
    alpha_setting = reading.take("lora_alpha")
    if alpha_setting is not None:
        alpha = number_of(alpha_setting.value) or default_alpha
    return {"lora_r": rank, "lora_alpha": alpha * math.sqrt(rank)}


def _take_packing(reading: Reading) -> None:
    """Only TRL's best-fit packing keeps examples apart; `wrapped` cuts them."""
    packing, strategy = reading.take("packing"), reading.take("packing_strategy")
    if packing is None:
        if strategy is not None:
            reading.lose(strategy, Loss("packing is off", changes_result=False))
        return
    reading.apply(packing, same("packing"))
    is_on = as_bool(packing.value) is True
    if strategy is not None and strategy.value != "bfd":
        why = "packing is best-fit with whole examples" if is_on else "packing is off"
        reading.lose(strategy, Loss(why, changes_result=is_on, about=("packing",)))


def _take_datasets(reading: Reading) -> None:
    """A mixture (`datasets`) of one is that one, and wins over a name."""
    mixture = reading.take("datasets")
    if mixture is not None:
        reading.apply(mixture, _mixture)
    _take_subset(reading)
    _take_test_split(reading)


def _take_test_split(reading: Reading) -> None:
    """Another split of the named dataset is evaluated on, where anything is."""
    test, name = reading.take("dataset_test_split"), reading.left.get("dataset_name")
    strategy = reading.values.get("eval_strategy")
    is_mixture = "dataset" in reading.values
    if name is None or is_mixture or strategy is None or strategy.value == "no":
        if test is not None:
            reading.lose(test, Loss("no split is evaluated on there", changes_result=False))
    elif not can_have_splits(str(name.value)):
        why = "a file alone has no other split: rows are held out of it"
        reading.lose(test or strategy, Loss(why, changes_result=False))
    elif test is None or is_held_out_split(test.value):
        reading.carry(test or name, {"eval_dataset": name.value})
        if test is None or test.value == "test":
            reading.differences.append(VALIDATION_FIRST)
    else:
        why = f"{HELD_OUT_SPLITS}, and not {test.value}"
        reading.lose(test, Loss(why, changes_result=True, about=("eval_dataset",)))


def _take_subset(reading: Reading) -> None:
    """`dataset_config` is a part of the dataset's name here."""
    name, subset = reading.left.get("dataset_name"), reading.take("dataset_config")
    if subset is None:
        return
    if name is None or "dataset" in reading.values:
        reading.lose(subset, Loss("it goes with dataset_name", changes_result=False))
        return
    try:
        joined = of_subset(name.value, subset.value)
    except Loss as loss:
        reading.lose(subset, loss)
        return
    reading.left["dataset_name"] = replace(name, value=joined)


def _mixture(value: Any) -> Values:
    entries = value if isinstance(value, list) else []
    if len(entries) != 1 or not isinstance(entries[0], dict) or "path" not in entries[0]:
        why = "one dataset is trained on here"
        raise Loss(why, changes_result=True, about=("dataset",))
    entry = dict(entries[0])
    values = {"dataset": file_or_path(entry), "dataset_split": entry.pop("split", "train")}
    subset = entry.pop("name", None)
    if subset is not None:
        values["dataset"] = of_subset(values["dataset"], subset)
    left = {key: each for key, each in entry.items() if each is not None}
    if left:
        raise Loss(
            f"{', '.join(left)} of the dataset have no counterpart",
            changes_result=True,
            instead=values,
        )
    return values


def _template_path(value: Any) -> Values:
    if isinstance(value, str) and value.endswith((".jinja", ".j2")):
        return {"chat_template": value}
    raise Loss(
        "a template is named by a Jinja file here", changes_result=True, about=("chat_template",)
    )


_HOW_LOADED: Final = ("attn_implementation", "device_map", "dtype", "torch_dtype", "use_cache")


def _model_init(value: Any) -> Values:
    """Arguments of from_pretrained: where and in which format weights lie, or another model."""
    try:
        arguments = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise Loss("not a mapping", changes_result=True)
    others = [name for name, each in arguments.items() if name not in _HOW_LOADED and each]
    if others:
        raise Loss(
            f"the model is loaded as it is saved, without {', '.join(others)}", changes_result=True
        )
    raise Loss(_FP32_WEIGHTS, changes_result=False)


def _test_split_size(value: Any) -> Values:
    """A share of the rows that is held out; a number of them has no counterpart."""
    number = number_of(value)
    if number is None or not 0 < number < 1:
        why = "a share of the rows is held out, not a number"
        raise Loss(why, changes_result=True, about=("eval_dataset",))
    return {"eval_dataset": number}


def _length(value: Any) -> Values:
    return same("max_length")(value)


def _pad_multiple(value: Any) -> Values:
    return {} if value == "auto" else same("pad_to_multiple_of")(value)


def _completion_only(value: Any) -> Values:
    return {"completion_only_loss": truth(value)}


FIELDS_OF_TRL: Final = {
    **FIELDS,
    "model_name_or_path": same("model"),
    "model_revision": lossy("the newest revision is taken", "main", about=("model",)),
    "dtype": harmless(_FP32_WEIGHTS),
    "torch_dtype": harmless(_FP32_WEIGHTS),
    "attn_implementation": SPEED,
    "trust_remote_code": same("trust_remote_code"),
    "lora_r": same("lora_r"),
    "lora_alpha": same("lora_alpha"),
    "lora_dropout": same("lora_dropout"),
    "lora_target_modules": same("target_modules"),
    "lora_target_parameters": lossy("adapters stand beside linear modules alone"),
    "lora_modules_to_save": lossy("no module is trained whole beside the adapters"),
    "lora_task_type": lossy("only causal language models are trained", "CAUSAL_LM"),
    "use_dora": lossy("adapters are plain LoRA", False),
    "bnb_4bit_quant_type": harmless("nothing is quantised"),
    "bnb_4bit_quant_storage": harmless("nothing is quantised"),
    "use_bnb_nested_quant": harmless("nothing is quantised"),
    "dataset_name": same("dataset"),
    "dataset_train_split": same("dataset_split"),
    "dataset_streaming": LOADING,
    "dataset_text_field": same("dataset_text_field"),
    "dataset_num_proc": LOADING,
    "dataset_kwargs": LOADING,
    "shuffle_dataset": harmless("rows come in a seeded random order here"),
    "ignore_bias_buffers": SPEED,
    "max_length": _length,
    "max_seq_length": _length,
    "truncation_mode": same("truncation_mode"),
    "padding_free": switch({"padding": "none"}),
    "pad_to_multiple_of": _pad_multiple,
    "eval_packing": harmless("the held-out loss is the same packed or not"),
    "completion_only_loss": _completion_only,
    "assistant_only_loss": same("assistant_only_loss"),
    "loss_type": lossy("the loss is the negative log-likelihood", "nll", "chunked_nll"),
    "router_aux_loss_coef": lossy("no auxiliary loss of a router is added", 0, 0.0),
    "activation_offloading": SPEED,
    "chat_template_path": _template_path,
    "pad_token": same("pad_token"),
    "model_init_kwargs": _model_init,
    "streaming": LOADING,
    "test_split_size": _test_split_size,
}

TRL: Final = Dialect(
    name="trl",
    title="TRL",
    markers=frozenset(
        {"model_name_or_path", "dataset_name", "use_peft", "dataset_train_split"}
        | {"chat_template_path", "packing_strategy"}
    ),
    begin=_begin,
    fields=FIELDS_OF_TRL,
    prefixes=PREFIXES,
    defaults={
        **DEFAULTS,
        "learning_rate": 2e-5,
        "max_length": 1024,
        "precision": "bf16",
        "assistant_only_loss": False,
        "lora_r": 16,
        "lora_alpha": 32,
    },
)
