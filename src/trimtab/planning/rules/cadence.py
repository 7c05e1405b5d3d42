"""How often the held-out loss is measured and the run is saved."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative, Decision, Origin
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, counted, decision, percent
from trimtab.planning.rules.schedule import share_of_steps

AUTO_EVALUATIONS = 10
MAX_EVALUATION_SHARE = 0.1
MIN_SAVES = 4
MAX_LOST_S = 600.0
"""Seconds of training that a crash may cost, where more saves than `MIN_SAVES` are affordable."""
MAX_SAVING_SHARE = 0.02
SAVE_OVERHEAD_S = 0.05
"""Of a save that is small: a dozen files that are put on the disk one by one."""
ASSUMED_SAVE_BYTES_PER_S = 2e8
ALIKE_SIZES = 1.5
"""Times that the size of an earlier run's checkpoint may differ by for its time to tell."""


def decide_cadence(
    resolved: ResolvedConfig,
    facts: Facts,
    *,
    num_steps: int,
    num_updates_per_epoch: int,
    tokens_per_step: float,
    checkpoint_bytes: float,
    step_time_s: float | None = None,
) -> Ruling:
    """`eval_strategy`, `eval_steps` and `save_steps`, in whole updates (0: never).

    `checkpoint_bytes` is the size of one; `step_time_s` is the predicted time of an update, None
    where it is not known.
    """
    num_eval_rows = facts.integer("rows.eval_num_examples")
    strategy = resolved.config.eval_strategy
    eval_steps = _eval_steps(
        resolved, facts, num_steps, num_updates_per_epoch, num_steps * tokens_per_step
    )
    told = {
        "no": "the held-out loss is not measured",
        "steps": "every eval_steps updates",
        "epoch": "after each epoch",
    }[strategy]
    if strategy != "no" and num_eval_rows == 0:
        told = "nothing is held out"
    warnings: tuple[str, ...] = ()
    if resolved.is_given("eval_steps") and eval_steps.origin != "user":
        warnings = (f"eval_steps has no effect: {eval_steps.because}.",)
    return Ruling(
        (
            decision(resolved, "eval_strategy", strategy, "default", told),
            eval_steps,
            _save_steps(resolved, facts, num_steps, checkpoint_bytes, step_time_s),
        ),
        warnings,
    )


def _eval_steps(
    resolved: ResolvedConfig,
    facts: Facts,
    num_steps: int,
    num_updates_per_epoch: int,
    num_run_tokens: float,
) -> Decision:
    asked, strategy = resolved.config.eval_steps, resolved.config.eval_strategy
    eval_tokens = facts.integer("rows.eval_num_tokens")
    if strategy == "no":
        return Decision("eval_steps", 0, "rule", "eval_strategy is no")
    if eval_tokens == 0:
        return Decision("eval_steps", 0, "rule", "nothing is held out")
    if strategy == "epoch":
        because = f"eval_strategy is epoch: {counted(num_updates_per_epoch, 'update')} each"
        return Decision("eval_steps", num_updates_per_epoch, "rule", because)
    if asked == "auto":
        return _auto_eval_steps(num_steps, eval_tokens, num_run_tokens)
    if isinstance(asked, int):
        times = counted(math.ceil(num_steps / asked), "evaluation")
        return decision(resolved, "eval_steps", asked, "user", f"{times} in {num_steps:,} updates")
    steps = share_of_steps(asked, num_steps)
    because = f"{asked:g} of {counted(num_steps, 'update')} = {steps:,}"
    return decision(resolved, "eval_steps", steps, "user", because)


def _auto_eval_steps(num_steps: int, eval_tokens: int, num_run_tokens: float) -> Decision:
    affordable = math.floor(MAX_EVALUATION_SHARE * num_run_tokens / eval_tokens)
    num_evaluations = max(1, min(AUTO_EVALUATIONS, affordable, num_steps))
    steps = math.ceil(num_steps / num_evaluations)
    done = math.ceil(num_steps / steps)
    cost = done * eval_tokens / num_run_tokens
    because = (
        f"{counted(done, 'evaluation')} of {eval_tokens:,} tokens, {cost:.2g}× the run's "
        f"{num_run_tokens:,.0f}"
    )
    if affordable < 1:
        because += "; a tenth allows none, so only the end is measured"
    elif done < min(AUTO_EVALUATIONS, num_steps):
        because += f"; a tenth of them allows {affordable:,}"
    half, twice = math.ceil(steps / 2), min(2 * steps, num_steps)
    alternatives = tuple(
        Alternative(other, f"would cost {_evaluation_cost(other, num_steps, eval_tokens):,} tokens")
        for other in (half, twice)
        if other != steps
    )
    return Decision(
        "eval_steps",
        steps,
        "rule",
        because,
        ("rows.eval_num_tokens", "rows.num_tokens"),
        alternatives,
        "counts tokens; one that is only evaluated costs about a third of a trained one's time",
    )


def _evaluation_cost(steps: int, num_steps: int, eval_tokens: int) -> int:
    return math.ceil(num_steps / steps) * eval_tokens


def _save_steps(
    resolved: ResolvedConfig,
    facts: Facts,
    num_steps: int,
    checkpoint_bytes: float,
    step_time_s: float | None,
) -> Decision:
    asked = resolved.config.save_steps
    if asked == "auto":
        return _auto_save_steps(facts, num_steps, checkpoint_bytes, step_time_s)
    if isinstance(asked, int):
        return decision(resolved, "save_steps", asked, "user", f"of {num_steps:,} updates")
    steps = share_of_steps(asked, num_steps)
    because = f"{asked:g} of {counted(num_steps, 'update')} = {steps:,}"
    return decision(resolved, "save_steps", steps, "user", because)


@dataclass(frozen=True, slots=True)
class _SaveCost:
    seconds: float
    told: str
    facts: tuple[str, ...]


def _save_cost(facts: Facts, checkpoint_bytes: float) -> _SaveCost:
    """Of one checkpoint: as an earlier run's of that size took, or by the disk's speed."""
    if _is_like_the_last_runs(facts, checkpoint_bytes):
        told = "the time of a save is that of an earlier run on its own disk"
        return _SaveCost(facts.number("saving.checkpoint_s"), told, ("saving.checkpoint_s",))
    size = f"{checkpoint_bytes / 1e6:,.0f} MB"
    ids: tuple[str, ...] = ()
    if "disk.save_bytes_per_s" in facts:
        rate, ids = facts.number("disk.save_bytes_per_s"), ("disk.save_bytes_per_s",)
        told = f"the time of a save is that of {size} at {rate / 1e6:,.0f} MB/s"
    else:
        rate = ASSUMED_SAVE_BYTES_PER_S
        told = f"the time of a save is not measured; {rate / 1e6:,.0f} MB/s are assumed for {size}"
    return _SaveCost(SAVE_OVERHEAD_S + checkpoint_bytes / rate, told, ids)


def _is_like_the_last_runs(facts: Facts, checkpoint_bytes: float) -> bool:
    if "saving.checkpoint_bytes" not in facts:
        return False
    ratio = checkpoint_bytes / facts.number("saving.checkpoint_bytes")
    return 1 / ALIKE_SIZES <= ratio <= ALIKE_SIZES


def _auto_save_steps(
    facts: Facts, num_steps: int, checkpoint_bytes: float, step_time_s: float | None
) -> Decision:
    """As often as a crash may cost, unless that takes over 2% of the time; the end is saved.

    A crash may cost a quarter of the run, and no more than ten minutes.
    """
    quarter = math.ceil(num_steps / MIN_SAVES)
    if step_time_s is None:
        because = f"a quarter of {counted(num_steps, 'update')}"
        limits = "the time of an update is not known"
        return Decision("save_steps", quarter, "rule", because, (), _saving(quarter), limits)
    cost, run_s = _save_cost(facts, checkpoint_bytes), num_steps * step_time_s
    affordable = math.floor(MAX_SAVING_SHARE * run_s / cost.seconds)
    wanted = max(MIN_SAVES, math.ceil(run_s / MAX_LOST_S))
    steps = math.ceil(num_steps / max(1, min(wanted, affordable, num_steps)))
    done = math.ceil(num_steps / steps)
    because = (
        f"{counted(done, 'save')} of {cost.seconds:.2g} s in {run_s:,.0f} s of training: "
        f"{percent(done * cost.seconds, run_s)} of its time"
    )
    if affordable < wanted:
        because += (
            f"; {wanted:,} would take {percent(wanted * cost.seconds, run_s)}, over a fiftieth"
        )
    else:
        because += f"; a crash loses at most {min(run_s, steps * step_time_s):,.0f} s"
    origin: Origin = "measured" if cost.facts else "rule"
    return Decision("save_steps", steps, origin, because, cost.facts, _saving(steps), cost.told)


def _saving(steps: int) -> tuple[Alternative, ...]:
    if steps == 1:
        return ()
    half = math.ceil(steps / 2)
    return (Alternative(half, f"a crash would lose at most {counted(half, 'update')}"),)
