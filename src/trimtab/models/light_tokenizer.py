"""The model's tokenizer read from tokenizer.json alone, without transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from trimtab.errors import ConfigError
from trimtab.models.safety import read_json
from trimtab.models.source import ModelSource, local_template_files

SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


@dataclass(frozen=True)
class LightTokenizer:
    """What transformers' fast tokenizer says of these files, as far as planning asks it.

    What a tokenizer class of transformers adds in code to its files is not in it, so counts of
    tokens are near, not sure.
    """

    tokenizer: FastTokenizer
    special_tokens_map: Mapping[str, str]
    chat_template: str | dict[str, str] | None

    @property
    def is_fast(self) -> bool:
        return True

    @property
    def bos_token(self) -> str | None:
        return self.special_tokens_map.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        return self.special_tokens_map.get("eos_token")

    @property
    def unk_token(self) -> str | None:
        return self.special_tokens_map.get("unk_token")

    @property
    def pad_token(self) -> str | None:
        return self.special_tokens_map.get("pad_token")

    @property
    def bos_token_id(self) -> int | None:
        return None if self.bos_token is None else self.tokenizer.token_to_id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        return None if self.eos_token is None else self.tokenizer.token_to_id(self.eos_token)

    @cached_property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return self.tokenizer.get_added_tokens_decoder()

    def get_vocab(self) -> dict[str, int]:
        return self.tokenizer.get_vocab(with_added_tokens=True)

    def __call__(self, text: str | list[str], **options: Any) -> dict[str, Any]:
        """`input_ids` and `offset_mapping`, of one text or of each of a list."""
        texts = [text] if isinstance(text, str) else text
        encoded = self.tokenizer.encode_batch(
            texts, add_special_tokens=options["add_special_tokens"]
        )
        ids = [one.ids for one in encoded]
        offsets = [one.offsets for one in encoded]
        if isinstance(text, str):
            return {"input_ids": ids[0], "offset_mapping": offsets[0]}
        return {"input_ids": ids, "offset_mapping": offsets}


def load_light_tokenizer(source: ModelSource) -> LightTokenizer:
    """Raises ConfigError where there is no tokenizer.json, or it cannot be read."""
    file = source.folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(
            "there is no tokenizer.json, without which a quick plan cannot count tokens.",
            where=str(source.folder),
            hint="Plan without --quick, which loads the tokenizer with transformers.",
        )
    try:
        tokenizer = FastTokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower class
        raise ConfigError(f"the tokenizer cannot be loaded: {error}.", where=str(file)) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    declared = _declared(source.folder)
    special = _special_tokens(declared)
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_special_tokens([token for token in special.values() if token not in known])
    return LightTokenizer(tokenizer, special, _chat_template(source, declared))


def declared_special_tokens(model: str) -> dict[str, str] | None:
    """The special tokens that a model's files declare, by their roles; None where none of the
    files is here yet."""
    files = local_template_files(model)
    return _special_tokens(_declared(files[0].parent)) if files else None


def _declared(folder: Path) -> dict[str, Any]:
    """What the tokenizer's configuration says; older files of special tokens stand behind it."""
    declared: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            declared |= read_json(folder / name)
    return declared


def _special_tokens(declared: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: _content(declared[name]) for name in SPECIAL_TOKENS if declared.get(name) is not None
    }


def _content(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _chat_template(source: ModelSource, declared: Mapping[str, Any]) -> str | dict[str, str] | None:
    file = source.folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    older = source.folder / "chat_template.json"
    template = read_json(older).get("chat_template") if older.is_file() else None
    template = declared.get("chat_template") if template is None else template
    if isinstance(template, list):
        return {entry["name"]: entry["template"] for entry in template}
    return template
