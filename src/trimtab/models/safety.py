"""What a model's folder must have, and must not have, before any of it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from trimtab.errors import ConfigError
from trimtab.runs.folder import RunFolder, is_run

_CODE_KEYS: Final = frozenset({"auto_map", "custom_pipelines", "_attn_implementation_internal"})
_IMPLEMENTATION_KEYS: Final = frozenset(
    {
        "attn_implementation",
        "_attn_implementation",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
    }
)
_CHECKED_FILES: Final = (
    "config*.json",  # config.json may name others for other versions of transformers
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "*processor_config.json",
)
_ADAPTER_CONFIG: Final = "adapter_config.json"
_ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
_ADAPTER_KEYS: Final = frozenset(
    {
        "base_model_name_or_path",
        "bias",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "target_modules",
        "task_type",
    }
)
"""What an adapter that `save_result` wrote says; peft imports and matches what others ask for."""
PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_WEIGHTS: Final = "model.safetensors"
_WEIGHTS_INDEX: Final = "model.safetensors.index.json"


def check_model_folder(
    folder: Path, *, trust_remote_code: bool, needs_weights: bool = True
) -> None:
    """Refuse a folder that cannot be loaded, or not without running something that it brings.

    Raises ConfigError, naming the file, for: no config.json, broken JSON, no tokenizer, weights
    that are missing, truncated, quantised or pickled, an adapter, and code of the model's own
    unless it is trusted. Weights are opened for their headers only; a folder that has none is
    refused where it `needs_weights`.
    """
    if (folder / _ADAPTER_CONFIG).exists():
        # transformers would load the base that it names, from wherever that is.
        raise ConfigError(
            f"model: {folder} holds an adapter ({_ADAPTER_CONFIG}), and training starts from a "
            "whole model.",
            hint="Name the adapter's base model, or merge the adapter into it first"
            + (f": trimtab export {folder.parent}" if is_run(folder.parent) else "."),
        )
    if not (folder / "config.json").is_file():
        if is_run(folder):
            raise ConfigError(
                f"model: {folder} is a run's folder, not a model's.", hint=_model_of_run(folder)
            )
        raise ConfigError(
            f"model: {folder} is no model folder: it has no config.json.",
            hint="Give a folder in Hugging Face's format, a .gguf file or a hub name.",
        )
    _check_settings(folder, trust_remote_code=trust_remote_code)
    config = read_json(folder / "config.json")
    if "quantization_config" in config:
        raise ConfigError(
            "model: the weights are quantised, and training on quantised weights is not there yet.",
            where=str(folder / "config.json"),
            hint="Give the model in bf16, fp16 or fp32.",
        )
    if needs_weights or has_weights(folder):
        for path in weight_files(folder):
            _check_header(path)


def has_weights(folder: Path) -> bool:
    """Whether the folder holds weights in any form that is known, be they readable or not."""
    return any(any(folder.glob(pattern)) for pattern in (*PICKLED, "*.safetensors*"))


def _model_of_run(folder: Path) -> str:
    run = RunFolder(folder)
    if run.model.is_dir():
        return f"Its model is {run.model}."
    if run.adapter.is_dir():
        return f"Its adapter is merged into a whole model with: trimtab export {folder}"
    return f"It holds none; one that has not ended goes on with: trimtab resume {folder}"


def _check_settings(folder: Path, *, trust_remote_code: bool) -> None:
    for pattern in _CHECKED_FILES:
        for file in sorted(folder.glob(pattern)):
            settings = read_json(file)
            if not trust_remote_code:
                _refuse_code(file, settings)


def check_adapter_folder(folder: Path) -> None:
    """Refuse an adapter that `save_result` did not write.

    Raises ConfigError, naming the file, for weights that are missing, damaged or pickled, for code
    of its own, and for settings with which peft would import modules or match patterns.
    """
    _check_settings(folder, trust_remote_code=False)
    config = read_json(folder / _ADAPTER_CONFIG)
    others = sorted(key for key, value in config.items() if value and key not in _ADAPTER_KEYS)
    targets = config.get("target_modules")
    if others or config.get("peft_type") != "LORA" or not isinstance(targets, list):
        what = others[0] if others else f"peft_type {config.get('peft_type')!r}"
        raise ConfigError(
            f"the adapter was not written by trimtab: it asks for {what!r}.",
            where=str(folder / _ADAPTER_CONFIG),
            hint="Train it again, or load it with peft where you trust it.",
        )
    if not (folder / _ADAPTER_WEIGHTS).is_file():
        raise ConfigError(
            f"the adapter has no weights: {_ADAPTER_WEIGHTS} is not there.", where=str(folder)
        )
    _check_header(folder / _ADAPTER_WEIGHTS)


def refuse_pickled(model: str, file_names: Iterable[str]) -> None:
    """Raises ConfigError where a model that has no safetensors has pickled weights."""
    names = sorted(file_names)
    pickled = [name for name in names if any(fnmatch(name, pattern) for pattern in PICKLED)]
    if pickled and not any(name.endswith(".safetensors") for name in names):
        raise ConfigError(
            f"model: {model} has its weights pickled only ({', '.join(pickled[:3])}); a pickle "
            "can run code, so none is read.",
            hint="Where you trust it, convert it: load it with transformers' from_pretrained and "
            "call save_pretrained on a new folder, which writes safetensors.",
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ConfigError, naming the file, for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is nested too deeply"
        raise ConfigError(
            f"the file cannot be read: {reason}.", where=str(path), hint="Fetch the model again."
        ) from error
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"this is not JSON: {error.msg}.",
            where=f"{path}:{error.lineno}",
            hint="Fetch the model again.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            "this is not UTF-8 text.", where=str(path), hint="Fetch the model again."
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(
            "this is not a JSON object.", where=str(path), hint="Fetch the model again."
        )
    return value


def _refuse_code(path: Path, settings: dict[str, Any]) -> None:
    for key, value in _entries(settings):
        if key in _CODE_KEYS or (key in _IMPLEMENTATION_KEYS and _names_a_repository(value)):
            raise ConfigError(
                f"the model brings code of its own ({key}), which is not run unasked.",
                where=str(path),
                hint="If you trust where it comes from, set trust_remote_code: true.",
            )


def _names_a_repository(value: Any) -> bool:
    """Does it, or for one part of the model, name an attention or experts as `owner/name`?"""
    if isinstance(value, dict):
        return any(_names_a_repository(inner) for inner in value.values())
    return isinstance(value, str) and "/" in value


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def weight_files(folder: Path) -> list[Path]:
    """A folder's safetensors files. Raises ConfigError where they are not all there."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    index = folder / _WEIGHTS_INDEX
    if index.is_file():
        return _shards(folder, index)
    refuse_pickled(str(folder), (path.name for path in folder.iterdir()))
    raise ConfigError(
        f"model: {folder} has no weights: neither {_WEIGHTS} nor {_WEIGHTS_INDEX}.",
        hint="Fetch the model again, with its safetensors files.",
    )


def _shards(folder: Path, index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ConfigError(
            "the index has no weight_map.", where=str(index), hint="Fetch the model again."
        )
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name:
            raise ConfigError(f"the index names {name!r}, outside the folder.", where=str(index))
        if not (folder / name).is_file():
            raise ConfigError(
                f"the index names {name}, which is not there.",
                where=str(index),
                hint="Fetch the model again.",
            )
    return [folder / name for name in names]


def _check_header(path: Path) -> None:
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise ConfigError(
            f"the weights are damaged: {error}.", where=str(path), hint="Fetch the model again."
        ) from error
