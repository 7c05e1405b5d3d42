"""The light tokenizer answers as transformers' own does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny import save_tiny_model, tiny_tokenizer

from trimtab.errors import ConfigError
from trimtab.models.light_tokenizer import load_light_tokenizer
from trimtab.models.loading import load_tokenizer
from trimtab.models.pad_token import choose_pad_token, end_of_turn_token_ids
from trimtab.models.source import ModelSource

TEXTS = ["the quick <|im_start|>fox\njumps", "", " dog's  question<|im_end|>\n"]


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    return ModelSource("tiny", save_tiny_model(tmp_path))


def test_tokens_and_offsets(source: ModelSource) -> None:
    light, full = load_light_tokenizer(source), load_tokenizer(source)
    for add_special_tokens in (False, True):
        expected = full(TEXTS, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
        found = light(TEXTS, add_special_tokens=add_special_tokens)
        assert found["input_ids"] == expected["input_ids"]
        assert found["offset_mapping"] == expected["offset_mapping"]


def test_special_tokens_and_template(source: ModelSource) -> None:
    light, full = load_light_tokenizer(source), load_tokenizer(source)
    assert light.chat_template == full.chat_template
    assert light.special_tokens_map == full.special_tokens_map
    assert (light.bos_token_id, light.eos_token_id) == (full.bos_token_id, full.eos_token_id)
    assert light.get_vocab() == full.get_vocab()
    for choice in ("auto", "unk", "eos", "<s>"):
        assert choose_pad_token(light, choice, 320) == choose_pad_token(full, choice, 320)
    assert end_of_turn_token_ids(light, "x") == end_of_turn_token_ids(full, "x")


def test_a_special_token_that_the_vocabulary_lacks_is_added(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<|filler|>"})
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"] = content["added_tokens"][:-1]
    file.write_text(json.dumps(content))
    source = ModelSource("tiny", tmp_path)
    full = load_tokenizer(source)
    assert load_light_tokenizer(source).get_vocab()["<|filler|>"] == full.pad_token_id


@pytest.mark.parametrize(
    "template", ["plain {{ messages }}", [{"name": "default", "template": "plain"}]]
)
def test_a_template_in_the_configuration(
    source: ModelSource, template: str | list[dict[str, str]]
) -> None:
    (source.folder / "chat_template.jinja").unlink()
    file = source.folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    assert load_light_tokenizer(source).chat_template == load_tokenizer(source).chat_template


def test_without_tokenizer_json(source: ModelSource) -> None:
    (source.folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json.*Plan without --quick"):
        load_light_tokenizer(source)


def test_a_damaged_tokenizer(source: ModelSource) -> None:
    (source.folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_light_tokenizer(source)
