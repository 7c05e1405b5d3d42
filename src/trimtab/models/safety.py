"""What a model's folder must have, and must not have, before any of it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from trimtab.errors import ConfigError

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
_CHECKED_FILES: Final = ("config.json", "tokenizer_config.json", "generation_config.json")
PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_WEIGHTS: Final = "model.safetensors"
_WEIGHTS_INDEX: Final = "model.safetensors.index.json"


def check_model_folder(folder: Path, *, trust_remote_code: bool) -> None:
    """Refuse a folder that cannot be loaded, or not without running something that it brings.

    Raises ConfigError, naming the file, for: no config.json, broken JSON, no tokenizer, weights
    that are missing, truncated, quantised or pickled, and code of the model's own unless it is
    trusted. Weights are opened for their headers only.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model: {folder} is no model folder: it has no config.json.",
            hint="Give a folder in Hugging Face's format, a .gguf file or a hub name.",
        )
    for name in _CHECKED_FILES:
        if (folder / name).is_file():
            settings = read_json(folder / name)
            if not trust_remote_code:
                _refuse_code(folder / name, settings)
    config = read_json(folder / "config.json")
    if "quantization_config" in config:
        raise ConfigError(
            "model: the weights are quantised, and training on quantised weights is not there yet.",
            where=str(folder / "config.json"),
            hint="Give the model in bf16, fp16 or fp32.",
        )
    for path in weight_files(folder):
        _check_header(path)


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
        names_a_repository = isinstance(value, str) and "/" in value
        if key in _CODE_KEYS or (key in _IMPLEMENTATION_KEYS and names_a_repository):
            raise ConfigError(
                f"the model brings code of its own ({key}), which is not run unasked.",
                where=str(path),
                hint="If you trust where it comes from, set trust_remote_code: true.",
            )


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
