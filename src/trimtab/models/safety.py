"""What a model folder must not hold: code that runs when it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.errors import ConfigError

CODE_KEYS = ("auto_map", "custom_pipelines", "_attn_implementation_internal")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check_model_folder(folder: Path, *, trust_remote_code: bool) -> None:
    """Refuse a folder that is no model, has pickled weights only, or brings code of its own.

    Raises ConfigError naming the file.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ConfigError(
            "the folder has no config.json, so it is not a Hugging Face model.",
            where=str(folder),
            hint="Name a folder that save_pretrained wrote, a hub name, or a .gguf file.",
        )
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        file = folder / name
        if file.is_file():
            _check_json(file, trust_remote_code=trust_remote_code)
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled:
        raise ConfigError(
            f"the weights are only there as a pickle ({pickled[0]}), which can run code.",
            where=str(folder),
            hint="Convert them once, in a place that you trust: load the model with transformers "
            "and call save_pretrained, which writes safetensors.",
        )
    raise ConfigError("the folder has no *.safetensors weights.", where=str(folder))


def _check_json(file: Path, *, trust_remote_code: bool) -> None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"not readable as JSON: {error}.", where=str(file)) from error
    if not isinstance(content, dict):
        raise ConfigError("not a JSON object.", where=str(file))
    found = sorted(_code_keys(content))
    if found and not trust_remote_code:
        raise ConfigError(
            f"the model brings code of its own ({', '.join(found)}).",
            where=str(file),
            hint="Read that code; if you trust it, set trust_remote_code: true.",
        )


def _code_keys(content: dict[str, Any]) -> set[str]:
    found = {key for key in CODE_KEYS if key in content}
    for value in content.values():
        if isinstance(value, dict):
            found |= _code_keys(value)
    return found
