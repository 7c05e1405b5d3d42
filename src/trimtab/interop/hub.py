"""What would go to the Hugging Face Hub, and sending it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.models.source import HUB_NAME


@dataclass(frozen=True, slots=True)
class Upload:
    """Files, by their path in the repository, with their sizes in bytes.

    address: of what was sent; None where nothing was.
    """

    repository: str
    files: tuple[tuple[str, int], ...]
    address: str | None = None

    @property
    def num_bytes(self) -> int:
        return sum(size for _, size in self.files)


def push_to_hub(folder: str | Path, repository: str, *, dry_run: bool = False) -> Upload:
    """Send a folder to a repository `USER/NAME`, private where it is new.

    With `dry_run` nobody is asked and nothing sent: the answer is what would go. Raises ConfigError
    for a name that is no repository's, and where the Hub refuses or cannot be reached.
    """
    check_repository(repository)
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    upload = Upload(
        repository,
        tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files),
    )
    return upload if dry_run else replace(upload, address=_sent(folder, repository))


def check_repository(repository: str) -> None:
    if HUB_NAME.fullmatch(repository) is None:
        raise ConfigError(
            f"--push-to-hub is {repository!r}, which is no repository's name.",
            hint="Write USER/NAME.",
        )


def _sent(folder: Path, repository: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        sent = api.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise ConfigError(
            f"the Hub did not take it: {str(error).strip()}",
            hint="Log in with `hf auth login`, and check the name. The export itself is done.",
        ) from error
    return str(sent.commit_url)
