"""Axolotl's YAML. After `axolotl/utils/schemas/` and `axolotl/core/builders/base.py`."""

from __future__ import annotations

from typing import Any, Final

from trimtab.errors import ConfigError
from trimtab.interop.dialects.axolotl_datasets import take_datasets
from trimtab.interop.dialects.hugging_face import (
    EMBEDDINGS_DECAY,
    FIELDS,
    HUB,
    LOADING,
    LOGGING,
    NO_PART,
    SAVING,
    SEVERAL_DEVICES,
    SPEED,
    number_of,
    optim_args,
    own_tokens,
    save_total_limit,
    take_eval_strategy,
    take_length,
    take_optimizer,
    take_precision,
    take_warmup,
)
from trimtab.interop.dialects.trl import rank_stabilised
from trimtab.interop.translating import (
    Dialect,
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

_QUANTISED: Final = "the weights would be trained on in 4 or 8 bits, which is not there"
_NOT_SFT: Final = ("rl", "reward_model", "process_reward_model")


def _begin(reading: Reading) -> None:
    for name in _NOT_SFT:
        setting = reading.take(name)
        if setting is not None and as_bool(setting.value) is not False:
            raise ConfigError(
                f"{name} is {setting.value!r}: only supervised fine-tuning is done here.",
                where=setting.where,
            )
    if "num_epochs" in reading.left:
        reading.left["num_train_epochs"] = reading.left.pop("num_epochs")
    _take_adapter(reading)
    take_length(reading)
    take_warmup(reading)
    take_precision(
        reading,
        ("bf16", "bf16"),
        ("bfloat16", "bf16"),
        ("fp16", "fp16"),
        ("float16", "fp16"),
        otherwise="auto",
    )
    _take_special_tokens(reading)
    take_optimizer(reading, "optimizer")
    _take_schedule(reading)
    _take_cadence(reading)
    take_datasets(reading)
    reading.differences.append(EMBEDDINGS_DECAY)


def _take_adapter(reading: Reading) -> None:
    adapter = reading.take("adapter")
    is_lora = adapter is not None and adapter.value in ("lora", "qlora")
    if adapter is not None:
        reading.apply(adapter, _adapter)
    for name in ("load_in_4bit", "load_in_8bit", "gptq"):
        setting = reading.take(name)
        if setting is not None and as_bool(setting.value) is not False:
            reading.lose(setting, Loss(_QUANTISED, changes_result=True, about=("method",)))
    linear, modules = reading.take("lora_target_linear"), reading.take("lora_target_modules")
    scaled = reading.take("peft_use_rslora")
    if not is_lora:
        unused = [linear, modules, scaled]
        unused += [reading.take(name) for name in list(reading.left) if name.startswith("lora_")]
        for one in unused:
            if one is not None and as_bool(one.value) is not False:
                reading.lose(one, Loss("no adapter is asked for", changes_result=False))
        return
    if linear is not None and as_bool(linear.value) is True:
        reading.carry(linear, {"target_modules": "all-linear"})
        if modules is not None:
            why = "lora_target_linear takes every linear module"
            reading.lose(modules, Loss(why, changes_result=False))
    elif modules is not None:
        reading.apply(modules, same("target_modules"))
    if scaled is not None:
        reading.apply(scaled, lambda value: rank_stabilised(reading, value, "lora_r", 8, 16))


def _adapter(value: Any) -> Values:
    if value == "lora":
        return {"method": "lora"}
    if value == "qlora":
        raise Loss(_QUANTISED, changes_result=True, instead={"method": "lora"})
    raise Loss("adapters are LoRA", changes_result=True, about=("method",))


def _take_schedule(reading: Reading) -> None:
    """`cosine_min_lr_ratio` is transformers' cosine_with_min_lr by another name."""
    scheduler, lowest = reading.take("lr_scheduler"), reading.take("cosine_min_lr_ratio")
    constant = reading.take("cosine_constant_lr_ratio")
    if constant is not None and number_of(constant.value) != 0:
        why = "no schedule keeps its lowest rate for the end"
        reading.lose(constant, Loss(why, changes_result=True, about=("lr_scheduler_type",)))
    is_cosine = scheduler is None or scheduler.value == "cosine"
    if lowest is not None and is_cosine:
        reading.carry(
            lowest,
            {
                "lr_scheduler_type": "cosine_with_min_lr",
                "lr_scheduler_kwargs": {"min_lr_rate": number_of(lowest.value) or 0.0},
            },
        )
        return
    if lowest is not None:
        reading.lose(lowest, Loss("the schedule is no cosine", changes_result=False))
    if scheduler is not None:
        reading.apply(scheduler, same("lr_scheduler_type"))


def _take_cadence(reading: Reading) -> None:
    """So many a pass of so many passes are a share of the run."""
    epochs = reading.left.get("num_train_epochs")
    num_epochs = 1.0 if epochs is None else number_of(epochs.value) or 1.0
    is_by_steps = "max_steps" in reading.values
    take_eval_strategy(reading)
    for name, target in (("evals_per_epoch", "eval_steps"), ("saves_per_epoch", "save_steps")):
        setting, steps = reading.take(name), reading.take(target)
        if steps is not None:
            reading.apply(steps, same(target))
        if setting is None:
            continue
        share = 1 / ((number_of(setting.value) or 0) * num_epochs or float("inf"))
        if share == 0:
            if target == "eval_steps":
                reading.carry(setting, {"eval_strategy": "no"})
        elif is_by_steps or share >= 1:
            why = "the run's end is one; how often before it is decided here"
            reading.lose(setting, Loss(why, changes_result=False))
        else:
            reading.carry(setting, {target: round(share, 6)})


def _gradient_checkpointing(value: Any) -> Values:
    """What is offloaded is recomputed all the same."""
    if value in ("offload", "offload_disk", "unsloth"):
        return {"activation_checkpointing": "full"}
    return same("activation_checkpointing")(value)


def _long_rows(value: Any) -> Values:
    modes = {"drop": "drop", "truncate": "keep_start", "raise": "error"}
    if not isinstance(value, str) or value not in modes:
        raise Loss("not drop, truncate or raise", changes_result=True)
    return {"truncation_mode": modes[value]}


def _take_special_tokens(reading: Reading) -> None:
    setting = reading.take("special_tokens")
    if setting is None:
        return
    if not isinstance(setting.value, dict):
        reading.lose(setting, Loss("not a mapping", changes_result=True))
        return
    tokens = {role: token for role, token in setting.value.items() if token}
    if "pad_token" in tokens:
        reading.carry(setting, {"pad_token": tokens.pop("pad_token")})
    if tokens:
        reading.apply(setting, lambda value: own_tokens(reading, tokens))


def _chat_template(value: Any) -> Values:
    """Names of templates that model families bring themselves; a model without one is refused."""
    if value == "jinja":
        return {}
    if value == "tokenizer_default" or value not in ("alpaca", "chatml", "command_a_tool_use"):
        return {"chat_template": "model"}
    raise Loss(
        f"the template {value} is not here: give it as a Jinja file",
        changes_result=True,
        about=("chat_template",),
    )


def _plugins(value: Any) -> Values:
    """Kernels alone, or something else."""
    kernels = ("CutCrossEntropyPlugin", "LigerPlugin", "KernelsPlugin", "ExpertParallelPlugin")
    names = value if isinstance(value, list) else [value]
    others = [str(name) for name in names if str(name).rpartition(".")[2] not in kernels]
    if others:
        raise Loss(f"{', '.join(others)} is not there", changes_result=True)
    raise Loss("kernels: a matter of speed", changes_result=False)


def _total_batch(value: Any) -> Values:
    raise Loss(
        "micro_batch_size × gradient_accumulation_steps decide, as in Axolotl",
        changes_result=False,
    )


def _all(names: str, field: Field) -> dict[str, Field]:
    return dict.fromkeys(names.split(), field)


_SPEED: Final = (
    "attn_implementation flash_attention xformers_attention sdp_attention flex_attention "
    "flex_attn_compile_kwargs sage_attention eager_attention flash_attn_cross_entropy "
    "flash_attn_rms_norm flash_attn_fuse_mlp flash_attn_fuse_qkv flash_optimum flash_attn_d512 "
    "sdpa_varlen fused_attn_kernel gemma4_hybrid_attn_impl large_head_attention "
    "experts_implementation lora_mlp_kernel lora_qkv_kernel lora_o_kernel lora_embedding_kernel "
    "chunked_cross_entropy chunked_cross_entropy_num_chunks cut_cross_entropy tiled_mlp "
    "tiled_mlp_num_shards tiled_mlp_use_original_mlp use_kernels use_scattermoe use_sonicmoe "
    "activation_offloading layer_offloading selective_checkpointing deepcompile torch_compile "
    "torch_compile_backend torch_compile_mode torch_compile_options gc_steps gc_collect_steps "
    "low_cpu_mem_usage max_memory gpu_memory_limit lora_on_cpu device_map device tf32 "
    "batch_flattening multipack_real_batches pad_to_sequence_len eval_sample_packing "
    "sample_packing_group_size sample_packing_bin_size sample_packing_eff_est "
    "sample_packing_sequentially sample_packing_mp_start_method sample_packing_seq_len_multiplier "
    "total_num_tokens total_supervised_tokens qlora_sharded_model_loading "
    "experimental_skip_move_to_device float32 peft_autocast_adapter_dtype use_glm_dsa_kernels "
    "use_dsv4_kernels torchdistx_path gptq_groupsize gptq_model_v1 gptq_disable_exllama"
)
_LOGGED: Final = (
    "use_tensorboard use_wandb use_mlflow use_comet use_trackio use_otel_metrics profiler_steps "
    "profiler_steps_start include_tokens_per_second include_tkps debug eval_table_size "
    "loss_watchdog_threshold loss_watchdog_patience generate_samples strict is_preprocess "
    "axolotl_config_path dynamic_checkpoint eval_max_new_tokens use_swanlab"
)
_LOADED: Final = (
    "dataset_prepared_path dataset_processes dataset_num_proc dataset_shard_num dataset_shard_idx "
    "dataset_keep_in_memory num_dataset_shards_to_save preprocess_iterable remove_unused_columns "
    "hf_use_auth_token tokenizer_use_fast tokenizer_legacy tokenizer_type model_type "
    "tokenizer_use_mistral_common tokenizer_save_jinja_files streaming "
    "streaming_multipack_buffer_size shuffle_merged_datasets shuffle_before_merging_datasets "
    "group_by_length push_dataset_to_hub base_model_config base_model_ignore_patterns"
)
_SAVED: Final = (
    "resume_from_checkpoint auto_resume_from_checkpoints save_only_model save_safetensors "
    "save_strategy save_first_step load_best_model_at_end metric_for_best_model "
    "greater_is_better merge_lora merge_method"
)
_SPREAD: Final = (
    "world_size local_rank ddp dp_shard_size dp_replicate_size sequence_parallel_degree "
    "context_parallel_size heads_k_stride ring_attn_func tensor_parallel_size "
    "expert_parallel_size deepspeed use_ray accelerator_config"
)
_ABSENT: Final = {
    "unfrozen_parameters": "every weight is trained, or adapters alone",
    "freeze_mm_modules": "text models alone are trained",
    "processor_type": "text models alone are trained",
    "lora_model_dir": "adapters begin anew",
    "lora_modules_to_save": "no module is trained whole beside the adapters",
    "lora_target_parameters": "adapters stand beside linear modules alone",
    "lora_rank_pattern": "every adapter has one rank",
    "lora_alpha_pattern": "every adapter has one scale",
    "peft_use_dora": "adapters are plain LoRA",
    "peft_layers_to_transform": "adapters stand in every layer",
    "loraplus_lr_ratio": "both halves of an adapter learn at one rate",
    "peft": "adapters begin as plain LoRA",
    "relora": "adapters are plain LoRA",
    "relora_prune_ratio": "adapters are plain LoRA",
    "jagged_restart_steps": "the rate does not restart",
    "lisa_n_layers": "every layer is trained",
    "pretraining_dataset": "rows of fine-tuning are read, no stream for pretraining",
    "qat": "nothing is quantised",
    "fp8": "products are in bf16, fp16 or fp32",
    "quantize_moe_experts": "nothing is quantised",
    "neftune_noise_alpha": "no noise is added to embeddings",
    "early_stopping_patience": "a run has its whole length, and the best weights are kept",
    "lr_quadratic_warmup": "warmup is linear",
    "embedding_lr": "all weights learn at one rate",
    "embedding_lr_scale": "all weights learn at one rate",
    "lr_groups": "all weights learn at one rate",
    "reinit_weights": "training begins from the model's weights",
    "use_pose": "positions are the rows' own",
    "use_eaft": "the loss is the negative log-likelihood",
    "diffusion": "the loss is the negative log-likelihood",
    "resize_token_embeddings_to_32x": "no token is added",
    "added_tokens_overrides": "no token is added",
    "dataset_exact_deduplication": "copies of rows are counted, not left out",
    "curriculum_sampling": "rows come in a seeded random order",
    "min_sample_len": "short rows are kept",
    "default_system_message": "the rows' own system turns are used",
    "chat_template_kwargs": "the template gets no arguments",
    "revision_of_model": "the newest revision is taken",
    "overrides_of_model_config": "the model's own configuration is used",
    "model_config": "the model's own configuration is used",
    "tokenizer_config": "the model's own tokenizer is used",
}
_AS_TRANSFORMERS: Final = (
    "weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm seed output_dir learning_rate "
    "lr_scheduler_kwargs gradient_accumulation_steps num_train_epochs logging_steps "
    "gradient_checkpointing_kwargs"
)

FIELDS_OF_AXOLOTL: Final = {
    **_all(_SPEED, SPEED),
    **_all(_LOGGED, LOGGING),
    **_all(_LOADED, LOADING),
    **_all(_SAVED, SAVING),
    **_all(_SPREAD, SEVERAL_DEVICES),
    **{name: lossy(why, False) for name, why in _ABSENT.items()},
    **{name: FIELDS[name] for name in _AS_TRANSFORMERS.split()},
    "base_model": same("model"),
    "micro_batch_size": same("per_device_train_batch_size"),
    "batch_size": _total_batch,
    "eval_batch_size": same("per_device_eval_batch_size"),
    "sequence_len": same("max_length"),
    "excess_length_strategy": _long_rows,
    "sample_packing": same("packing"),
    "pad_to_multiple_of": same("pad_to_multiple_of"),
    "optim_args": optim_args,
    "optim_target_modules": optim_args,
    "adam_eps": same("adam_epsilon"),
    "save_total_limit": save_total_limit,
    "lora_r": same("lora_r"),
    "lora_alpha": same("lora_alpha"),
    "lora_dropout": same("lora_dropout"),
    "lora_fan_in_fan_out": harmless("found from the kind of module"),
    "gradient_checkpointing": _gradient_checkpointing,
    "trust_remote_code": same("trust_remote_code"),
    "tokens": lossy("no token is added", []),
    "chat_template": _chat_template,
    "eot_tokens": harmless("turns end where the template ends them, and that is trained on"),
    "val_set_size": same("eval_dataset"),
    "plugins": _plugins,
    "bnb_config_kwargs": harmless("nothing is quantised"),
    "skip_prepare_dataset": LOADING,
    "model_quantization_config": lossy("the model's own weights are loaded as they are"),
    "model_quantization_config_kwargs": harmless("goes with model_quantization_config"),
    "full_finetune": lambda value: {"method": "full"} if truth(value) else {},
    "do_causal_lm_eval": NO_PART,
    "eval_causal_lm_metrics": NO_PART,
}
PREFIXES_OF_AXOLOTL: Final = {
    "wandb_": LOGGING,
    "mlflow_": LOGGING,
    "comet_": LOGGING,
    "trackio_": LOGGING,
    "swanlab_": LOGGING,
    "otel_": LOGGING,
    "liger_": SPEED,
    "dataloader_": LOADING,
    "ddp_": SEVERAL_DEVICES,
    "fsdp": SEVERAL_DEVICES,
    "ray_": SEVERAL_DEVICES,
    "expert_parallel": SEVERAL_DEVICES,
    "hub_": HUB,
    "generation_": NO_PART,
}

AXOLOTL: Final = Dialect(
    name="axolotl",
    title="Axolotl",
    markers=frozenset({"base_model", "sequence_len"}),
    begin=_begin,
    fields=FIELDS_OF_AXOLOTL,
    prefixes=PREFIXES_OF_AXOLOTL,
    defaults={
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1.0,
        "max_length": 512,
        "truncation_mode": "drop",
        "lr_scheduler_type": "cosine",
        "eval_dataset": "none",
        "method": "full",
    },
)
