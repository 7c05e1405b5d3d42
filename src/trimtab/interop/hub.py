"""What would go to the Hugging Face Hub, and sending it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.models.source import HUB_NAME


@dataclass(frozen=True, slots=True)
class Upload:
    """Files, by their path in the repository, with their sizes in bytes."""

    repository: str
    files: tuple[tuple[str, int], ...]

    @property
    def num_bytes(self) -> int:
        return sum(size for _, size in self.files)


def planned_upload(folder: Path, repository: str) -> Upload:
    """What `push` would send; asks nobody.

    Raises ConfigError for a name that is no repository's.
    """
    if HUB_NAME.fullmatch(repository) is None:
        raise ConfigError(
            f"--push-to-hub is {repository!r}, which is no repository's name.",
            hint="Write USER/NAME.",
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Upload(
        repository,
        tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files),
    )


def push(folder: Path, repository: str) -> str:
    """Send the folder to a repository, private where it is new; returns its address.

    Raises ConfigError where the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    planned_upload(folder, repository)
    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        sent = api.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise ConfigError(
            f"the Hub did not take it: {str(error).splitlines()[0]}",
            hint="Log in with `hf auth login`, and check the name. The export itself is done.",
        ) from error
    return str(sent.commit_url)
