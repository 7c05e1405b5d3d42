"""How often the held-out loss is measured and the run is saved."""

from __future__ import annotations

import math

from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Decision
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, counted, decision
from trimtab.planning.rules.schedule import share_of_steps

AUTO_EVALUATIONS = 10
MAX_EVALUATION_SHARE = 0.1
AUTO_SAVES = 4


def decide_cadence(
    resolved: ResolvedConfig,
    facts: Facts,
    *,
    num_steps: int,
    num_updates_per_epoch: int,
    tokens_per_step: float,
) -> Ruling:
    """`eval_strategy`, `eval_steps` and `save_steps`, in whole updates (0: never)."""
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
            _save_steps(resolved, num_steps),
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
    return Decision(
        "eval_steps", steps, "rule", because, ("rows.eval_num_tokens", "rows.num_tokens")
    )


def _save_steps(resolved: ResolvedConfig, num_steps: int) -> Decision:
    asked = resolved.config.save_steps
    if asked == "auto":
        steps = math.ceil(num_steps / AUTO_SAVES)
        because = f"a quarter of {counted(num_steps, 'update')}"
        return Decision("save_steps", steps, "rule", because)
    if isinstance(asked, int):
        return decision(resolved, "save_steps", asked, "user", f"of {num_steps:,} updates")
    steps = share_of_steps(asked, num_steps)
    because = f"{asked:g} of {counted(num_steps, 'update')} = {steps:,}"
    return decision(resolved, "save_steps", steps, "user", because)
