"""A GGUF file as a Hugging Face folder, dequantised once and kept in the cache."""

from __future__ import annotations

import glob
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import ConfigError
from trimtab.runs.cache import CACHE_VARIABLE, cache_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def unpack_gguf(path: Path, on_progress: Callable[[str], None] | None = None) -> Path:
    """The folder with the file's weights as fp32 safetensors, its tokenizer and configuration.

    Written at the first use, complete or not at all, under a name of the file's stem, size and
    sha256. Raises ConfigError where the file cannot be read or unpacked, or the package `gguf` is
    not installed.
    """
    from trimtab.models.foreign import first_sentence

    folder = cache_folder() / "gguf" / f"{path.stem}-{path.stat().st_size}-{_sha256(path)[:16]}"
    if folder.is_dir():
        return folder
    if find_spec("gguf") is None:
        raise ConfigError(
            f"model: reading {path.name} needs the package gguf.",
            hint="Install it with `pip install 'trimtab[gguf]'`.",
        )
    if on_progress is not None:
        on_progress(f"unpacking {path.name}, once")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", dir=folder.parent))
    try:
        _unpack(path, staged)
        _move_into_place(staged, folder)
    except OSError as error:
        raise ConfigError(
            f"model: {path} cannot be unpacked into {folder.parent}: {first_sentence(error)}",
            hint=f"Check the file and the room there; {CACHE_VARIABLE} names another cache folder.",
        ) from error
    except Exception as error:  # the reader believes a broken file's counts, and fails anyhow
        raise ConfigError(
            f"model: {path} cannot be unpacked: {first_sentence(error)}",
            hint="Give the model as a folder in Hugging Face's format instead.",
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def unpacked_gguf(path: Path) -> Path | None:
    """The folder that the file was unpacked into before; None where it was not.

    The file is not read: a folder of its name and size that is younger than it counts as its own.
    """
    stat = path.stat()
    folders = (cache_folder() / "gguf").glob(f"{glob.escape(path.stem)}-{stat.st_size}-*")
    found = [folder for folder in folders if folder.stat().st_mtime >= stat.st_mtime]
    return found[0] if len(found) == 1 else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(path: Path, folder: Path) -> None:
    from trimtab.models.disk_errors import raised_as_os_error
    from trimtab.models.quiet import quiet_transformers

    model, tokenizer = load_gguf(path)
    with quiet_transformers(), raised_as_os_error(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The file's weights, dequantised to fp32, and its tokenizer, as transformers reads them.

    Raises whatever the reader does for a file that it cannot read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trimtab.models.quiet import quiet_transformers

    with quiet_transformers(), _without_conversion_bar():
        tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    # The weights are plain by now; transformers refuses to save while these say otherwise.
    del model.config.quantization_config
    model.hf_quantizer = None
    return model, tokenizer


def _move_into_place(staged: Path, folder: Path) -> None:
    try:
        staged.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process has put the same files there
            raise


@contextmanager
def _without_conversion_bar() -> Iterator[None]:
    """Without the bar that transformers draws while it dequantises, which has no switch."""
    from transformers import modeling_gguf_pytorch_utils

    module: Any = modeling_gguf_pytorch_utils
    bar = module.tqdm
    module.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        module.tqdm = bar
