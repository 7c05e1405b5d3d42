"""The plan of each trial: that of the run, with what is moved set by the user."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from trimtab.data.batches import global_batch_size
from trimtab.data.first_rows import MadeOnce, first_rows
from trimtab.data.rows import TokenRow
from trimtab.data.streaming import StreamedRows
from trimtab.engine.building import batching
from trimtab.engine.observer import Observer, Silent
from trimtab.errors import ConfigError, DataError
from trimtab.hyperparameters.catalogue import aliases, catalogue
from trimtab.hyperparameters.layers import ResolvedConfig, resolve
from trimtab.hyperparameters.packages import check_optimizer_package
from trimtab.models.packing import packing_refusal_of
from trimtab.planning.discarding import with_answer
from trimtab.planning.effort import QUICK, TRAIN, Effort
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.plan import Plan
from trimtab.planning.planner import make_plan
from trimtab.planning.proxy import proxy_warmup_steps
from trimtab.planning.questions import TrainingRowsQuestion
from trimtab.planning.settings import Settings
from trimtab.workflow.planning import ConfigLike, PlannedRun, from_plan, plan_run, resolve_config
from trimtab.workflow.training_rows import rows_question
from trimtab.workflow.trial_runs import TrialOrder

HELD = (
    "max_length",
    "pad_token",
    "per_device_eval_batch_size",
    "learning_rate",
    "precision",
    "activation_checkpointing",
    "device",
    "lora_r",
    "lora_alpha",
    "data_seed",
)
"""What the plan decides and a trial takes from it, whatever else the trial moves."""
BATCH = ("global_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps")
WARMUP = {"warmup_steps", "warmup_ratio"}
NUM_KEPT = 2
"""Of rows of a long file: two lengths of trial, or two seeds, in turn."""
LENGTH = ("num_train_epochs", "max_steps")
MOVABLE_FAMILIES = (
    "length and padding",
    "batch",
    "duration",
    "learning rate",
    "regularisation and optimizer",
    "precision and memory",
    "LoRA",
)


@dataclass(frozen=True)
class TrialBench:
    """One configuration, planned once, with the rows that all its trials share."""

    resolved: ResolvedConfig
    planned: PlannedRun
    _kept_rows: dict[tuple[object, ...], MadeOnce] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def plan(self) -> Plan:
        return self.planned.plan

    @property
    def _facts(self) -> Facts:
        return Facts().adding(self.plan.facts)

    def order(
        self,
        overrides: Mapping[str, Any] | None = None,
        *,
        seed: int | None = None,
        num_steps: int | None = None,
    ) -> TrialOrder:
        """The trial in which `overrides` are set and all else is as planned.

        `num_steps` are updates of the plan's global batch, None for the plan's own length: where
        the batch is moved, as many updates are made as take the same number of rows. What else was
        `auto` stays at the plan's value. A shorter trial warms up for as many updates as the run,
        where that leaves half of it (`proxy_warmup_steps`).
        `seed` moves the order of the rows too, unless the user set `data_seed`; which rows are
        held out it never moves, nor do the overrides.

        Raises ConfigError for a name that no trial can move, a value out of its domain, settings
        that contradict each other, and an optimizer whose package is not installed.
        """
        moved = _canonical(overrides or {})
        if moved.get("global_batch_size") == "auto":
            moved["global_batch_size"] = self.plan.decision("global_batch_size").value
        plan = self._plan(moved, num_steps, self._facts)
        settings = plan.settings()
        check_optimizer_package(settings.optim)
        base = self.plan.settings()
        question = rows_question(settings)
        held_out = self.planned.materials.rows(rows_question(base)).eval
        rows = self.planned.materials.rows(question).train
        if seed is not None:
            keeps_order = self.resolved.config.data_seed != "auto"
            settings = replace(
                settings, seed=seed, data_seed=settings.data_seed if keeps_order else seed
            )
        is_streamed = isinstance(rows, StreamedRows)
        return TrialOrder(
            settings,
            self.planned.materials.source,
            self._first_rows(question, rows, settings) if is_streamed else tuple(rows),
            tuple(held_out),
            base.max_length,
            moved,
            packs_in_windows=is_streamed,
        )

    def learning_rate_prior(self, overrides: Mapping[str, Any] | None = None) -> float:
        """The rate that would be taken with these settings where nothing was measured of it."""
        facts = self._facts.without("tuned").without("rate_range")
        moved = {**_canonical(overrides or {}), "learning_rate": "auto"}
        return self._plan(moved, None, facts).settings().learning_rate

    def _first_rows(
        self, question: TrainingRowsQuestion, rows: Sequence[TokenRow], settings: Settings
    ) -> Sequence[TokenRow]:
        """The rows of a long file that the trial sees; those of the latest orders are kept."""
        layout = batching(settings)
        number = settings.num_train_steps
        key = (question, layout.data_seed, global_batch_size(layout), number)
        found = self._kept_rows.pop(key, None)
        if found is None:
            found = MadeOnce(partial(first_rows, rows, layout, number))
        self._kept_rows[key] = found
        for oldest in list(self._kept_rows)[:-NUM_KEPT]:
            del self._kept_rows[oldest]
        return found

    def _plan(self, moved: Mapping[str, Any], num_steps: int | None, facts: Facts) -> Plan:
        values = self._values(moved, num_steps)
        if num_steps is not None and not WARMUP & moved.keys():
            values = _with_warmup_of(self._plan(moved, None, facts).settings(), values)
        resolved = resolve(values=values)
        facts = facts.adding(self._packing_facts(moved))
        output_dir = self.plan.settings().output_dir
        while True:
            answer = make_plan(resolved, facts, output_dir=output_dir, effort=QUICK)
            if isinstance(answer, Plan):
                return answer
            for question in answer:
                facts = with_answer(facts, tuple(self.planned.materials.answer(question)))

    def _values(self, moved: Mapping[str, Any], num_steps: int | None) -> dict[str, Any]:
        config = self.resolved.config
        asked = {
            name: getattr(config, name)
            for name in catalogue()
            if self.resolved.is_set(name) and name not in (*BATCH, *LENGTH)
        }
        if moved.get("max_steps") == -1:
            asked["num_train_epochs"] = config.num_train_epochs
        if WARMUP & moved.keys():
            asked = {name: value for name, value in asked.items() if name not in WARMUP}
        held = {name: self.plan.decision(name).value for name in HELD}
        batch = self._batch(moved)
        length = self._length(moved, num_steps)
        values = {**asked, **held, **batch, **length, **moved}
        num_updates = length.get("max_steps")
        if num_updates is not None:
            values |= self._shortened(values, moved, num_updates)
        return values

    def _batch(self, moved: Mapping[str, Any]) -> dict[str, Any]:
        """What stays of the three sizes beside those that are moved."""
        asked = [name for name in BATCH if name in moved]
        planned = {name: self.plan.decision(name).value for name in BATCH}
        if not asked:
            return planned
        if asked == ["global_batch_size"]:
            micro = planned["per_device_train_batch_size"]
            divides = moved["global_batch_size"] % micro == 0
            return {"per_device_train_batch_size": micro} if divides else {}
        if len(asked) == 1:
            return {"global_batch_size": planned["global_batch_size"]}
        return {}

    def _length(self, moved: Mapping[str, Any], num_steps: int | None) -> dict[str, Any]:
        if any(name in moved for name in LENGTH):
            if num_steps is not None:
                raise ConfigError(
                    "a trial's length is given, and moved as well.",
                    hint="Leave out num_train_epochs and max_steps.",
                )
            return {}
        base = self.plan.settings()
        number = base.num_train_steps if num_steps is None else num_steps
        size = base.global_batch_size
        moved_size = _global_batch_size(moved, size)
        num_rows = self._facts.integer("rows.num_rows")
        return {"max_steps": _same_rows(number, num_rows, size, moved_size)}

    def _shortened(
        self, values: Mapping[str, Any], moved: Mapping[str, Any], num_updates: int
    ) -> dict[str, Any]:
        """Counts of updates that the user set, as the same shares of a trial's length; of a
        shorter one's warmup the run decides."""
        base = self.plan.settings()
        share = num_updates / base.num_train_steps
        changed: dict[str, Any] = {}
        warmup = values.get("warmup_steps")
        if isinstance(warmup, int) and not WARMUP & moved.keys():
            changed["warmup_steps"] = round(share * warmup)
        arguments = values.get("lr_scheduler_kwargs")
        if arguments and "lr_scheduler_kwargs" not in moved:
            changed["lr_scheduler_kwargs"] = {
                name: max(1, round(share * value)) if _counts_updates(name) else value
                for name, value in arguments.items()
            }
        return changed

    def _packing_facts(self, moved: Mapping[str, Any]) -> tuple[Fact, ...]:
        """Whether rows can be joined, where the plan had no reason to ask."""
        config = self.resolved.config
        was_asked = config.padding == "none" or config.packing
        if was_asked or not {"padding", "packing"} & moved.keys():
            return ()
        refusal = packing_refusal_of(self.planned.materials.source)
        method = "two documents joined against each alone"
        value = None if refusal is None else refusal.rstrip(".")
        return (Fact("model.packing_refusal", value, method=method),)


def trial_bench(
    config: ConfigLike | None = None,
    *,
    options: Sequence[tuple[str, str]] = (),
    observer: Observer | None = None,
    effort: Effort = TRAIN,
    plan: Plan | None = None,
) -> TrialBench:
    """Plan the configuration, for trials of it; `plan` is one that was made of it before.

    Raises ConfigError, DataError and DoesNotFit as planning does, and DataError where nothing is
    held out, so that a trial could not be scored.
    """
    resolved = resolve_config(config, options)
    observer = observer or Silent()
    if plan is None:
        planned = plan_run(resolved, observer, effort=effort)
    else:
        planned = from_plan(plan, observer)
    if not planned.plan.settings().num_eval_rows:
        because = planned.plan.decision("eval_dataset").because
        raise DataError(
            f"no row is held out, so that no trial can be scored ({because}).",
            where=resolved.config.dataset,
            hint="Set eval_dataset to a fraction such as 0.2 or to a dataset of its own.",
        )
    return TrialBench(resolved, planned)


def _canonical(overrides: Mapping[str, Any]) -> dict[str, Any]:
    moved: dict[str, Any] = {}
    for written, value in overrides.items():
        name = aliases().get(written, written)
        if name in catalogue():
            is_movable = catalogue()[name].declaration.family in MOVABLE_FAMILIES
            if not (is_movable or name == "method"):
                raise ConfigError(
                    f"{written} cannot be moved in a trial: all trials share the model, the rows "
                    "and the run's own settings.",
                    hint="Compare two configurations of their own.",
                )
        moved[name] = value
    return moved


def _global_batch_size(moved: Mapping[str, Any], planned: int) -> int:
    if "global_batch_size" in moved:
        return int(moved["global_batch_size"])
    sizes = [moved[name] for name in BATCH if name in moved]
    return int(sizes[0] * sizes[1]) if len(sizes) == 2 else planned


def _with_warmup_of(run: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial with the run's warmup, where the trial is shorter."""
    num_steps = values["max_steps"]
    if num_steps >= run.num_train_steps:
        return dict(values)
    num_decay_steps = dict(values.get("lr_scheduler_kwargs", {})).get("num_decay_steps", 0)
    warmup = proxy_warmup_steps(run.warmup_steps, num_steps, num_decay_steps=num_decay_steps)
    others = {name: value for name, value in values.items() if name not in WARMUP}
    return {**others, "warmup_steps": warmup}


def _same_rows(num_updates: int, num_rows: int, size: int, moved_size: int) -> int:
    """The updates of `moved_size` that see as many rows; an epoch's last one has what is left."""
    epochs, begun = divmod(num_updates, math.ceil(num_rows / size))
    whole = epochs * math.ceil(num_rows / moved_size)
    return max(1, whole + round(begun * size / moved_size))


def _counts_updates(name: str) -> bool:
    return name.startswith("num_") and name.endswith("_steps")
