"""Every example configuration of other tools, translated: what is carried, lost, or refused.

    python benchmarks/dialects.py CHECKOUT...

A checkout is a folder of TRL's, Axolotl's or LLaMA-Factory's repository, with its `examples/`.
The datasets that LLaMA-Factory's examples name lie in its `data/`; elsewhere names are enough.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.interop.importing import dialect_of, import_config

ROWS = [("dataset", "rows.jsonl")]


def walk(checkout: Path) -> None:
    counts: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    num_keys: Counter[str] = Counter()
    files = sorted([*checkout.glob("examples/**/*.yaml"), *checkout.glob("examples/**/*.yml")])
    for file in files:
        counts["files"] += 1
        try:
            dialect = dialect_of(file)
            if dialect is None:
                counts["of no tool that is read (accelerate, clouds)"] += 1
                continue
            counts[f"of {dialect.title}"] += 1
            found = import_config(file, options=ROWS, allow_lossy=True)
        except ConfigError as error:
            kind = "no supervised fine-tuning" if "supervised" in error.what else error.what
            counts[f"refused: {kind}"] += 1
            continue
        assert found is not None
        lossy = [one for one in found.not_carried if one.changes_result]
        counts["translated"] += 1
        counts["translated, nothing lost that changes the result"] += not lossy
        num_keys["values carried"] += found.num_carried
        num_keys["keys listed, no effect on the result"] += len(found.not_carried) - len(lossy)
        num_keys["keys listed, effect on the result"] += len(lossy)
        losses.update(f"{one.name}: {one.why}" for one in lossy)
    print(f"\n{checkout.name}")
    for told, count in [*counts.items(), *num_keys.items()]:
        print(f"  {count:5} {told}")
    print("  most frequent losses")
    for told, count in losses.most_common(8):
        print(f"  {count:5} {told}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        walk(Path(argument))
