"""What a model will be trained on, before it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.engine.observer import Observer, Silent
from trimtab.planning.effort import QUICK
from trimtab.planning.plan import Plan
from trimtab.runs.records import DataRecord
from trimtab.workflow.describing import data_record
from trimtab.workflow.planning import ConfigLike, plan_run, resolve_config
from trimtab.workflow.training_rows import rows_question


@dataclass(frozen=True, slots=True)
class Inspection:
    """The data's record, the template's text, the bad rows by place, and the plan's warnings."""

    data: DataRecord
    template_text: str | None
    bad_rows: tuple[tuple[str, str], ...]
    plan: Plan


def inspect(
    config: ConfigLike | None = None,
    *,
    options: Sequence[tuple[str, str]] = (),
    num_examples: int = 3,
    observer: Observer | None = None,
) -> Inspection:
    """The rows as training will see them: decoded with their mask, counted, and what is wrong.

    Raises ConfigError or DataError as `plan` does.
    """
    planned = plan_run(resolve_config(config, options), observer or Silent(), effort=QUICK)
    materials = planned.materials
    rows = materials.rows(rows_question(planned.plan.settings()))
    return Inspection(
        data=data_record(materials, rows, num_examples),
        template_text=materials.corpus.template.source_text,
        bad_rows=tuple((row.where, row.reason) for row in materials.corpus.bad_rows),
        plan=planned.plan,
    )
