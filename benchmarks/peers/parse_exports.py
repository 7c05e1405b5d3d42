"""What a tool's own parser makes of a configuration that `trimtab export` wrote for it.

    python parse_exports.py FILE...     (a `trl.yaml`, `axolotl.yaml` or `llamafactory.yaml`)

Run by an interpreter that has the tool: TRL as a package; Axolotl and LLaMA-Factory from a
checkout's `src/` on PYTHONPATH, with omegaconf and pillow beside what TRL asks for. Each key of
the file must come out of the parser with the value that the file has; exits with 1 where one does
not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

os.environ.setdefault("DISABLE_VERSION_CHECK", "1")


def parsed_by_trl(file: Path) -> dict[str, Any]:
    from trl import ModelConfig, ScriptArguments, SFTConfig, TrlParser
    from trl.scripts.utils import DatasetMixtureConfig

    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig))
    parts = parser.parse_args_and_config(args=["--config", str(file)])
    found = {name: value for part in parts for name, value in vars(part).items()}
    if found.get("datasets"):
        found["datasets"] = [
            {name: value for name, value in vars(one).items() if value is not None}
            for one in found["datasets"]
        ]
    return found


def parsed_by_axolotl(file: Path) -> dict[str, Any]:
    from axolotl.utils.schemas.config import AxolotlInputConfig

    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    return dict(AxolotlInputConfig(**values).model_dump(exclude_none=True))


def parsed_by_llama_factory(file: Path) -> dict[str, Any]:
    from llamafactory.hparams.parser import get_train_args

    parts = get_train_args(yaml.safe_load(file.read_text(encoding="utf-8")))
    found = {name: value for part in parts for name, value in vars(part).items()}
    # Its parser takes one token off where rows are packed, which the export adds.
    return found | {"cutoff_len": found["cutoff_len"] + bool(found["packing"])}


PARSERS = {
    "axolotl.yaml": parsed_by_axolotl,
    "llamafactory.yaml": parsed_by_llama_factory,
    "trl.yaml": parsed_by_trl,
}


def same(written: Any, found: Any) -> bool:
    """Enums by their value, lists for texts with commas, and only the keys that were written."""
    if isinstance(found, Enum):
        found = found.value
    if written == "none" and found == []:
        return True  # what `report_to` becomes
    if isinstance(written, str) and isinstance(found, list):
        return written.split(",") == [str(one) for one in found]
    if isinstance(written, Mapping) and isinstance(found, Mapping):
        return all(same(value, found.get(key)) for key, value in written.items())
    if isinstance(written, list) and isinstance(found, list):
        return len(written) == len(found) and all(map(same, written, found))
    return bool(written == found)


def main() -> int:
    num_wrong = 0
    for file in map(Path, sys.argv[1:]):
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = PARSERS[file.name](file)
        wrong = {
            name: (value, found.get(name))
            for name, value in written.items()
            if not same(value, found.get(name))
        }
        num_wrong += len(wrong)
        print(f"{file}: {len(written)} keys, {len(written) - len(wrong)} the same")
        for name, (value, other) in wrong.items():
            print(f"  {name}: written {value!r}, parsed {other!r}")
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
