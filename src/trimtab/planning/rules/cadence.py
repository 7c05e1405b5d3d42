"""How often the held-out loss is measured and the run is saved."""

from __future__ import annotations

import math

from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative, Decision
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, counted, decision, percent
from trimtab.planning.rules.schedule import share_of_steps

AUTO_EVALUATIONS = 10
MAX_EVALUATION_SHARE = 0.1
AUTO_SAVES = 4
MAX_SAVING_SHARE = 0.05


def decide_cadence(
    resolved: ResolvedConfig,
    facts: Facts,
    *,
    num_steps: int,
    num_updates_per_epoch: int,
    tokens_per_step: float,
    step_time_s: float | None = None,
) -> Ruling:
    """`eval_strategy`, `eval_steps` and `save_steps`, in whole updates (0: never).

    `step_time_s` is the predicted time of an update, None where it is not known.
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
    if resolved.is_set("eval_steps") and eval_steps.origin != "user":
        warnings = (f"eval_steps has no effect: {eval_steps.because}.",)
    return Ruling(
        (
            decision(resolved, "eval_strategy", strategy, "default", told),
            eval_steps,
            _save_steps(resolved, facts, num_steps, step_time_s),
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
    resolved: ResolvedConfig, facts: Facts, num_steps: int, step_time_s: float | None
) -> Decision:
    asked = resolved.config.save_steps
    if asked == "auto":
        return _auto_save_steps(facts, num_steps, step_time_s)
    if isinstance(asked, int):
        return decision(resolved, "save_steps", asked, "user", f"of {num_steps:,} updates")
    steps = share_of_steps(asked, num_steps)
    because = f"{asked:g} of {counted(num_steps, 'update')} = {steps:,}"
    return decision(resolved, "save_steps", steps, "user", because)


def _auto_save_steps(facts: Facts, num_steps: int, step_time_s: float | None) -> Decision:
    """A quarter of the run, unless four saves would take over 5% of its time; the end is saved."""
    quarter = math.ceil(num_steps / AUTO_SAVES)
    because = f"a quarter of {counted(num_steps, 'update')}"
    if step_time_s is None or "saving.checkpoint_s" not in facts:
        limits = "the time of a save is not measured"
        return Decision("save_steps", quarter, "rule", because, (), _saving(quarter), limits)
    save_s, run_s = facts.number("saving.checkpoint_s"), num_steps * step_time_s
    affordable = math.floor(MAX_SAVING_SHARE * run_s / save_s)
    steps = math.ceil(num_steps / max(1, min(AUTO_SAVES, affordable)))
    done = math.ceil(num_steps / steps)
    if steps == quarter:
        because += f": {percent(done * save_s, run_s)} of its time"
    else:
        because = (
            f"{counted(done, 'save')} of {save_s:.2g} s in {run_s:,.0f} s of training; "
            f"{AUTO_SAVES} would take {percent(AUTO_SAVES * save_s, run_s)} of it, over a "
            "twentieth"
        )
    limits = "the time of a save is that of an earlier run on its own disk"
    facts_used = ("saving.checkpoint_s",)
    return Decision("save_steps", steps, "measured", because, facts_used, _saving(steps), limits)


def _saving(steps: int) -> tuple[Alternative, ...]:
    if steps == 1:
        return ()
    half = math.ceil(steps / 2)
    return (Alternative(half, f"a crash would lose at most {counted(half, 'update')}"),)
