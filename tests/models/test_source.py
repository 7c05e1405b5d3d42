from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled
from support.tiny import save_tiny_model

from trimtab.errors import ConfigError
from trimtab.models import gguf, source
from trimtab.models.description import describe
from trimtab.models.gguf import unpacked_gguf
from trimtab.models.loading import load_model, load_tokenizer
from trimtab.models.packing import packing_refusal
from trimtab.models.pad_token import choose_pad_token
from trimtab.models.source import (
    embedded_demo_model,
    local_files,
    local_template_files,
    locate,
    locate_light,
)
from trimtab.runs.cache import CACHE_VARIABLE

HAS_DEMO_MODEL = all(
    importlib.util.find_spec(package) is not None for package in (source.DEMO_PACKAGE, "gguf")
)


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this must not be asked")


def test_a_folder(tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_llama_folder.parent)
    found = locate(tiny_llama_folder.name, trust_remote_code=False)
    assert found.name == tiny_llama_folder.name
    assert found.folder == tiny_llama_folder.resolve()
    assert found.trust_remote_code is False


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_tiny_model(tmp_path / "models")
    assert locate("~/models", trust_remote_code=False).folder == (tmp_path / "models").resolve()


@pytest.mark.parametrize(
    "model",
    ["./absent", "/no/such/model", "~/absent", "../absent", "absent.gguf", "a/b/c", "data/absent"],
)
def test_what_looks_like_a_path_never_goes_to_the_hub(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", never)
    with pytest.raises(ConfigError, match=f"no file or folder {model}"):
        locate(model, trust_remote_code=False)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ConfigError, match="not a GGUF file"):
        locate(str(file), trust_remote_code=False)


@pytest.mark.parametrize("model", ["owner/name", "name"])
def test_a_hub_name_offline_says_what_to_do(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"{model} is neither") as refusal:
        locate(model, trust_remote_code=False)
    assert "Connect" in (refusal.value.hint or "")


@pytest.mark.parametrize("trusted", [False, True])
def test_a_snapshot_is_checked_and_brings_code_only_where_trusted(
    trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    patterns: list[str] = []

    def snapshot(name: str, *, allow_patterns: list[str], dry_run: bool = False) -> Any:
        assert name == "owner/name"
        if dry_run:
            return []
        patterns.extend(allow_patterns)
        (tmp_path / "snapshot").mkdir()
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(ConfigError, match=r"no config\.json"):
        locate("owner/name", trust_remote_code=trusted)
    assert ("*.py" in patterns) is trusted
    assert not any("bin" in pattern for pattern in patterns)


@pytest.mark.parametrize("reachable", [True, False])
def test_a_hub_model_with_pickled_weights_only(
    reachable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    snapshot = tmp_path / "snapshot"
    save_tiny_model(snapshot)
    (snapshot / "model.safetensors").unlink()

    def download(_: str, *, allow_patterns: list[str], dry_run: bool = False) -> Any:
        if not dry_run:
            assert not any("bin" in pattern for pattern in allow_patterns)
            return str(snapshot)
        if not reachable:
            raise OfflineModeIsEnabled
        assert "*.bin" in allow_patterns
        return [SimpleNamespace(filename="pytorch_model-00001-of-00002.bin")]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ConfigError) as refusal:
        locate("owner/name", trust_remote_code=False)
    if reachable:
        assert "owner/name has its weights pickled only (pytorch_model-" in refusal.value.what
        assert "save_pretrained" in (refusal.value.hint or "")
    else:
        assert "has no weights" in refusal.value.what


def test_no_demo_model_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="demo"):
        embedded_demo_model()


def test_gguf_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"trimtab\[gguf\]"):
        locate(str(file), trust_remote_code=False)


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="the gguf extra is absent")
@pytest.mark.parametrize("content", [b"", b"GGUF", b"no gguf at all" * 100])
def test_a_broken_gguf_file_leaves_nothing_behind(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.gguf cannot be unpacked"):
        locate(str(file), trust_remote_code=False)
    assert not list((gguf.cache_folder() / "gguf").glob("*broken*"))


@pytest.mark.real_model
@pytest.mark.skipif(not HAS_DEMO_MODEL, reason="the demo extra is absent")
def test_the_embedded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(gguf.CACHE_VARIABLE, str(tmp_path))
    notes: list[str] = []
    found = locate(str(embedded_demo_model()), trust_remote_code=False, on_progress=notes.append)
    assert notes == ["unpacking SmolLM2-135M-Instruct.Q4_1.gguf, once"]
    assert [path.parent for path in tmp_path.rglob("*.safetensors")] == [found.folder]
    assert list(found.folder.parent.iterdir()) == [found.folder]
    description = describe(found)
    assert (description.num_parameters, description.num_layers) == (134_515_008, 30)
    tokenizer = load_tokenizer(found)
    # It declares its end of turn as pad.
    assert tokenizer.pad_token == "<|im_end|>"
    assert choose_pad_token(tokenizer, "auto", description.vocab_size).token == "<|endoftext|>"
    model = load_model(
        found, dtype=torch.bfloat16, device=torch.device("cpu"), packed_attention=True
    )
    assert packing_refusal(model) is None
    prompt = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        next_id = int(model(input_ids=prompt).logits[0, -1].argmax())
    assert tokenizer.decode(next_id) == " Paris"
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(gguf, "_unpack", never)
    assert locate(str(embedded_demo_model()), trust_remote_code=False) == found
    shutil.rmtree(tmp_path)


def test_the_light_place_of_a_folder_and_of_what_is_missing(tiny_llama_folder: Path) -> None:
    full = locate(str(tiny_llama_folder), trust_remote_code=False)
    assert locate_light(str(tiny_llama_folder), trust_remote_code=False) == full
    for missing in ("./none", "none.gguf"):
        with pytest.raises(ConfigError, match="there is no file or folder"):
            locate_light(missing, trust_remote_code=False)
    with pytest.raises(ConfigError, match="Plan without --quick, which fetches it"):
        locate_light("owner/never-fetched", trust_remote_code=False)


def test_an_unpacked_gguf_file_is_found_without_reading_it(
    tiny_llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    file = tmp_path / "tiny[1].gguf"
    file.write_bytes(b"GGUF and more")
    assert unpacked_gguf(file) is None
    folder = tmp_path / "cache" / "gguf" / f"tiny[1]-{file.stat().st_size}-0123456789abcdef"
    shutil.copytree(tiny_llama_folder, folder)
    folder.touch()
    assert unpacked_gguf(file) == folder
    assert locate_light(str(file), trust_remote_code=False).folder == folder
    later = folder.stat().st_mtime + 10
    os.utime(file, (later, later))
    assert unpacked_gguf(file) is None


def test_the_files_that_make_a_model(tiny_llama_folder: Path, tmp_path: Path) -> None:
    names = {file.name for file in local_files(str(tiny_llama_folder)) or ()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    (tmp_path / "m.gguf").touch()
    assert local_files(str(tmp_path / "m.gguf")) == (tmp_path / "m.gguf",)
    assert local_files("owner/never-fetched") is None


def test_files_of_templates_are_found_beside_the_model_and_beside_an_unpacked_one(
    tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {file.name for file in local_template_files(str(tiny_llama_folder))}
    assert names == {"chat_template.jinja", "tokenizer_config.json"}
    (tmp_path / "m.gguf").touch()
    assert local_template_files(str(tmp_path / "m.gguf")) == ()
    monkeypatch.setattr(source, "unpacked_gguf", lambda path: tiny_llama_folder)
    assert {file.name for file in local_template_files(str(tmp_path / "m.gguf"))} == names
    assert local_template_files("owner/never-fetched") == ()
