"""LLaMA-Factory's YAML. After `llamafactory/hparams/` and `data/README.md` of its repository."""

from __future__ import annotations

from typing import Any, Final

from trimtab.errors import ConfigError
from trimtab.interop.dialects.hugging_face import (
    DEFAULTS,
    FIELDS,
    LOADING,
    LOGGING,
    NO_PART,
    PREFIXES,
    SEVERAL_DEVICES,
    SPEED,
    number_of,
    shared,
)
from trimtab.interop.dialects.llama_factory_datasets import take_dataset
from trimtab.interop.dialects.trl import rank_stabilised
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

_QUANTISED: Final = "the weights would be trained on in few bits, which is not there"


def _begin(reading: Reading) -> None:
    stage = reading.take("stage")
    if stage is not None and stage.value != "sft":
        raise ConfigError(
            f"stage is {stage.value!r}: only supervised fine-tuning (sft) is done here.",
            where=stage.where,
        )
    shared(reading)
    pure = reading.take("pure_bf16")
    if pure is not None and as_bool(pure.value) is True:
        why = "products are in bf16, and the weights that are trained are fp32"
        reading.lose(pure, Loss(why, changes_result=True, instead={"precision": "bf16"}))
    _take_method(reading)
    _take_packing(reading)
    off = reading.take("disable_gradient_checkpointing")
    if off is not None:
        reading.apply(
            off, lambda value: {"activation_checkpointing": "off" if truth(value) else "full"}
        )
    take_dataset(reading)
    reading.differences += [CUT_PROMPTS, ONE_LINE_BREAK]


CUT_PROMPTS: Final = Difference(
    "of a row longer than cutoff_len the prompt is cut there, and a short answer is kept whole; "
    "here the row loses its end",
    about=("truncation_mode",),
    applies=lambda config: config.truncation_mode == "keep_start",
)
ONE_LINE_BREAK: Final = Difference(
    "an instruction and its input are joined by a line break there, and by an empty line here",
    applies=lambda config: config.dataset_format in ("auto", "alpaca"),
)


def _take_method(reading: Reading) -> None:
    method = reading.take("finetuning_type")
    kind = "lora" if method is None else method.value
    if method is not None:
        reading.apply(method, _method)
    bits = reading.take("quantization_bit")
    if bits is not None:
        reading.lose(bits, Loss(_QUANTISED, changes_result=True, about=("method",)))
    if kind != "lora":
        for name in [name for name in reading.left if name.startswith(("lora_", "use_rslora"))]:
            setting = reading.take(name)
            if setting is not None:
                reading.lose(setting, Loss("no adapter is asked for", changes_result=False))
        return
    rank = 8
    if reading.has("lora_rank"):
        rank = int(number_of(reading.left["lora_rank"].value) or rank)
    scaled = reading.take("use_rslora")
    if scaled is not None:
        reading.apply(
            scaled, lambda value: rank_stabilised(reading, value, "lora_rank", 8, 2 * rank)
        )
    if reading.has("lora_rank") and not reading.has("lora_alpha"):
        reading.carry(reading.left["lora_rank"], {"lora_r": rank, "lora_alpha": 2 * rank})


def _method(value: Any) -> Values:
    if value in ("lora", "full"):
        return {"method": value}
    raise Loss("all weights or LoRA are trained", changes_result=True, about=("method",))


def _take_packing(reading: Reading) -> None:
    """Without `neat_packing`, examples of a packed row see each other there."""
    packing, neat = reading.take("packing"), reading.take("neat_packing")
    if neat is not None and as_bool(neat.value) is True:
        reading.carry(neat, {"packing": True})
    elif packing is not None and as_bool(packing.value) is True:
        why = "examples of a packed row do not see each other here, as under neat_packing"
        reading.lose(packing, Loss(why, changes_result=True, instead={"packing": True}))
    elif packing is not None:
        reading.apply(packing, same("packing"))
    length = reading.left.get("cutoff_len")
    if length is not None and is_packed(reading) and number_of(length.value) is not None:
        # LLaMA-Factory takes one token off the rows that it packs.
        reading.apply(length, lambda value: {"max_length": int(number_of(value) or 0) - 1})
        del reading.left["cutoff_len"]


def is_packed(reading: Reading) -> bool:
    return "packing" in reading.values and reading.values["packing"].value is True


def _template(value: Any) -> Values:
    """LLaMA-Factory's names are those of model families, whose own template is meant."""
    if value in ("default", "empty", "alpaca", "vicuna", "chatml"):
        raise Loss(
            f"the template {value} is not here: give it as a Jinja file",
            changes_result=True,
            about=("chat_template",),
        )
    return {"chat_template": "model"}


def _train_on_prompt(value: Any) -> Values:
    on = truth(value)
    return {"completion_only_loss": not on, "assistant_only_loss": not on}


def _optimizer_switch(name: str) -> Field:
    def carry(value: Any) -> Values:
        if truth(value):
            raise Loss(f"the optimizer {name} is not there", changes_result=True, about=("optim",))
        return {}

    return carry


def _muon(value: Any) -> Values:
    return {"optim": "muon"} if truth(value) else {}


def _val_size(value: Any) -> Values:
    number = number_of(value)
    if number is not None and number >= 1:
        raise Loss(
            "a share of the rows is held out, not a number",
            changes_result=True,
            about=("eval_dataset",),
        )
    return same("eval_dataset")(value)


def _all(names: str, field: Field) -> dict[str, Field]:
    return dict.fromkeys(names.split(), field)


_SPEED: Final = (
    "flash_attn use_unsloth use_unsloth_gc enable_liger_kernel use_reentrant_gc use_v1_kernels "
    "low_cpu_mem_usage offload_folder use_kv_cache infer_backend infer_dtype use_fast_tokenizer "
    "device_map block_diag_attn use_kt cache_dir print_param_status tf32 "
    "overwrite_cache preprocessing_batch_size preprocessing_num_workers media_dir buffer_size "
    "data_shared_file_system streaming tokenized_path eval_num_beams ignore_pad_token_for_loss "
    "eval_on_each_dataset double_quantization quantization_type quantization_method "
    "quantization_device_map"
)
_SPREAD: Final = (
    "use_mca use_megatron_bridge megatron_bridge_args use_hyper_parallel hyper_parallel_args "
    "hyper_parallel_cp_size tensor_model_parallel_size pipeline_model_parallel_size "
    "expert_model_parallel_size context_parallel_size sequence_parallel use_distributed_optimizer "
    "overlap_param_gather overlap_grad_reduce bias_activation_fusion apply_rope_fusion "
    "moe_grouped_gemm moe_token_dispatcher_type recompute_granularity master_addr master_port "
    "export_hf_on_finish mixed_precision"
)
_LOGGED: Final = (
    "plot_loss include_effective_tokens_per_second compute_accuracy use_swanlab "
    "enable_torch_profiler profiler_output_dir"
)
_ABSENT: Final = {
    "adapter_name_or_path": "adapters begin anew",
    "additional_target": "no module is trained whole beside the adapters",
    "loraplus_lr_ratio": "both halves of an adapter learn at one rate",
    "use_dora": "adapters are plain LoRA",
    "pissa_init": "adapters begin as plain LoRA",
    "use_llama_pro": "every layer is trained",
    "freeze_trainable_layers": "every layer is trained",
    "freeze_trainable_modules": "every layer is trained",
    "freeze_extra_modules": "every layer is trained",
    "mask_history": "every answer of a conversation is trained on",
    "mixture_of_depths": "the model's own layers are used",
    "shift_attn": "the model's own attention is used",
    "rope_scaling": "the model's own positions are used",
    "moe_aux_loss_coef": "no auxiliary loss of a router is added",
    "upcast_layernorm": "the model's own layers are used",
    "upcast_lmhead_output": "the model's own layers are used",
    "train_from_scratch": "training begins from the model's weights",
    "resize_vocab": "no token is added",
    "add_tokens": "no token is added",
    "add_special_tokens": "no token is added",
    "new_special_tokens_config": "no token is added",
    "split_special_tokens": "special tokens stay whole",
    "default_system": "the rows' own system turns are used",
    "preserve_thinking": "the template gets no arguments",
    "tool_format": "tools are not put into the prompt",
    "use_dft_loss": "the loss is the negative log-likelihood",
    "use_asft_loss": "the loss is the negative log-likelihood",
    "use_eaft_loss": "the loss is the negative log-likelihood",
    "fp8": "products are in bf16, fp16 or fp32",
    "disable_shuffling": "rows come in a seeded random order",
    "early_stopping_steps": "a run has its whole length, and the best weights are kept",
    "max_samples": "all rows are trained on",
    "freeze_vision_tower": "text models alone are trained",
    "freeze_multi_modal_projector": "text models alone are trained",
    "freeze_language_model": "every layer is trained",
    "interleave_probs": "one dataset is trained on",
}
_GOES_WITH: Final = harmless("goes with a key that is not carried")

FIELDS_OF_LLAMA_FACTORY: Final = {
    **FIELDS,
    **_all(_SPEED, SPEED),
    **_all(_SPREAD, SEVERAL_DEVICES),
    **_all(_LOGGED, LOGGING),
    **{name: lossy(why, False) for name, why in _ABSENT.items()},
    "enable_thinking": lossy("the template gets no arguments", True),
    "mix_strategy": lossy("one dataset is trained on", "concat"),
    "model_name_or_path": same("model"),
    "model_revision": lossy("the newest revision is taken", "main", about=("model",)),
    "trust_remote_code": same("trust_remote_code"),
    "template": _template,
    "cutoff_len": same("max_length"),
    "train_on_prompt": _train_on_prompt,
    "val_size": _val_size,
    "lora_rank": same("lora_r"),
    "lora_alpha": same("lora_alpha"),
    "lora_dropout": same("lora_dropout"),
    "lora_target": same("target_modules"),
    "create_new_adapter": NO_PART,
    "use_muon": _muon,
    "use_galore": _optimizer_switch("GaLore"),
    "use_apollo": _optimizer_switch("APOLLO"),
    "use_badam": _optimizer_switch("BAdam"),
    "use_adam_mini": _optimizer_switch("Adam-mini"),
    "overwrite_output_dir": harmless("a run is never overwritten"),
    "asft_alpha": _GOES_WITH,
    "eaft_alpha": _GOES_WITH,
    "use_packed_sequences": lossy("packing is asked for by `packing`", False),
}
PREFIXES_OF_LLAMA_FACTORY: Final = {
    **PREFIXES,
    **dict.fromkeys(("galore_", "apollo_", "badam_", "oft_", "pissa_", "fp8_"), _GOES_WITH),
    **dict.fromkeys(("kt_", "vllm_", "sglang_", "export_", "profiler_", "swanlab_"), NO_PART),
    **dict.fromkeys(("image_", "video_", "audio_"), harmless("text rows alone are read")),
    "hf_hub_": LOADING,
}

LLAMA_FACTORY: Final = Dialect(
    name="llamafactory",
    title="LLaMA-Factory",
    markers=frozenset(
        {"stage", "finetuning_type", "template", "cutoff_len", "lora_rank", "lora_target"}
    ),
    begin=_begin,
    fields=FIELDS_OF_LLAMA_FACTORY,
    prefixes=PREFIXES_OF_LLAMA_FACTORY,
    defaults={
        **DEFAULTS,
        "max_length": 2048,
        "method": "lora",
        "lora_r": 8,
        "lora_alpha": 16,
    },
)
