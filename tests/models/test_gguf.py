"""A GGUF file's place in the cache, where the disk has no room for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import SafetensorError

from trimtab.errors import ConfigError
from trimtab.models import gguf
from trimtab.runs.cache import CACHE_VARIABLE


class Full:
    """Saves as transformers does on a disk that is full."""

    def save_pretrained(self, folder: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")


def test_a_disk_that_fills_is_told_with_the_way_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "find_spec", lambda name: True)
    monkeypatch.setattr(gguf, "load_gguf", lambda path: (Full(), Full()))
    with pytest.raises(ConfigError, match="No space left on device") as raised:
        gguf.unpack_gguf(file)
    assert raised.value.hint is not None and CACHE_VARIABLE in raised.value.hint
    assert list((tmp_path / "cache" / "gguf").iterdir()) == []
