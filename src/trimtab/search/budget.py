"""What a search's runs have taken of its budget, and what that leaves room for."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.search.design import Design
from trimtab.search.record import Cost, TriedRun
from trimtab.workflow.trial_runs import TrialRun


def cost_of(runs: Sequence[TriedRun], design: Design) -> Cost:
    num_tokens = sum(run.num_tokens for run in runs)
    num_eval_tokens = sum(run.num_eval_tokens for run in runs)
    return Cost(
        num_tokens=num_tokens,
        num_eval_tokens=num_eval_tokens,
        seconds=sum(run.seconds for run in runs),
        share_of_run=(num_tokens + num_eval_tokens) / design.run_num_tokens,
    )


def num_made_up_for(runs: Sequence[TrialRun], design: Design, num_already: int = 0) -> int:
    """How many more runs to make in place of those that diverged, and so told where not to look
    and little else: as many as what they left of the budget has room for, and with `num_already`
    that were made up for no more than were designed.

    `runs` are those of the long length, the plan's own among them. A run whose process died is not
    made up for, and counts as a whole one: what it took is known in part.
    """
    sound = [run for run in runs if run.diverged is None]
    if not sound:
        return 0
    num_diverged = sum(run.diverged is not None and not run.died for run in runs)
    whole = max(_tokens(run) for run in sound)
    spent = sum(whole if run.died else _tokens(run) for run in runs)
    room = design.budget * design.run_num_tokens - spent - _short(sound, design)
    left = min(num_diverged, design.num_trials) - num_already
    return max(0, min(left, int(room // whole)))


def _short(sound: Sequence[TrialRun], design: Design) -> float:
    """The tokens of the runs of a second length that are made apart."""
    if design.short_branches:
        return 0.0
    shorter = design.short_num_steps / design.num_steps
    each = max(run.num_tokens * shorter + run.num_eval_tokens for run in sound)
    return design.num_short_trials * each


def _tokens(run: TrialRun) -> int:
    """Trained on and scored, those of its branch too."""
    own = run.num_tokens + run.num_eval_tokens
    return own if run.branch is None else own + _tokens(run.branch)
