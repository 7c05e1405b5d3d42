"""Tune: short runs of a configuration with a few settings moved, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.engine.observer import Observer, Silent
from trimtab.planning.fingerprint import digest
from trimtab.runs.atomic import write_json
from trimtab.runs.folder import RunFolder
from trimtab.runs.lock import run_lock
from trimtab.search.budget import cost_of
from trimtab.search.design import (
    DEFAULT_BUDGET,
    SamplerName,
    searched_names,
)
from trimtab.search.executors import Executor, executor_for
from trimtab.search.folder import Asked
from trimtab.search.judging import (
    Judged,
    against_start,
    fitted_horizon,
    taken,
    verdict,
)
from trimtab.search.keeping import reason_not_to_keep, tuned_facts
from trimtab.search.record import TuneResult
from trimtab.search.reproducing import training_options
from trimtab.search.searching import Search
from trimtab.search.storage import Trials, branches, open_storage
from trimtab.workflow.carrying_out import told_memory_errors
from trimtab.workflow.materials import fetch_model
from trimtab.workflow.planning import ConfigLike, resolve_config
from trimtab.workflow.recalling import reason_not_remembered, remember_tuned
from trimtab.workflow.stopping import stop_at_update_end
from trimtab.workflow.trial_plans import trial_bench

ALIKE = ("precision", "global_batch_size", "max_length")
"""What a plan may decide by a measurement, and must not differ among runs that are compared."""


def tune(
    config: ConfigLike | None = None,
    names: Sequence[str] = (),
    *,
    options: Sequence[tuple[str, str]] = (),
    budget: float = DEFAULT_BUDGET,
    num_trials: int | None = None,
    sampler: SamplerName = "local",
    storage: str | None = None,
    on: str = "local",
    observer: Observer | None = None,
) -> TuneResult:
    """Search for the best values of `names` (the learning rate where none are given).

    The runs are short ones of the configuration itself, annealed to their own end, with its seeds
    and its order of rows; the plan's own values are among them. They take at most the share
    `budget` of the planned run's tokens, by those of a mean update. Half of the held-out rows say
    which run is taken; the other half, which the search never sees, says whether it is better than
    the plan's own, which stays otherwise. What was found becomes facts for the next plan.

    `storage` is a URL of Optuna's; a file in the search's folder where it is left out. `on` is
    `local`, `ray`, or `ray:ADDRESS` of a cluster. Asked alike again, a search that was stopped
    goes on, and a finished one is told again.

    Raises ConfigError, DataError and DoesNotFit as planning does, ConfigError for a budget that is
    too small or a name that has no range, DataError for fewer than 16 held-out rows, and
    Interrupted, with every finished run kept.
    """
    observer = observer or Silent()
    resolved = resolve_config(config, options)
    fetch_model(resolved.config, observer)
    asked = Asked(resolved, searched_names(names), budget, num_trials, sampler)
    folder = asked.folder
    plan = folder.begun(asked)
    earlier = folder.result()
    if earlier is not None:
        observer.noted(f"this search is finished, and told again: {folder.root}")
        return earlier
    with told_memory_errors():
        bench = trial_bench(asked.resolved, observer=observer, plan=plan)
        search = Search.of(bench, asked, folder, observer)
        folder.root.mkdir(parents=True, exist_ok=True)
        with run_lock(RunFolder(folder.root)):
            folder.begin(asked, bench.plan)
            with closing(executor_for(on, asked.names)) as executor:
                result = _searched(search, storage, executor)
            write_json(folder.tune_json, result.to_json())
    return result


def _searched(search: Search, storage: str | None, executor: Executor) -> TuneResult:
    design = search.design
    _tell_design(search)
    url = storage or f"sqlite:///{search.folder.trials_db}"
    settings = asdict(search.bench.plan.settings())
    identity = digest([search.asked.digest, {name: settings[name] for name in ALIKE}])
    is_shared = storage is not None
    name = f"tune-{search.asked.digest[:16]}"
    short_finished = []

    def told_stop() -> None:
        search.observer.noted("Stopping after this update; finished runs are kept.")

    with open_storage(url) as opened, stop_at_update_end(told_stop) as stop_requested:
        trials = Trials(opened, name, design, identity, is_shared=is_shared)
        search.run_reference(trials, stop_requested)
        search.run_long(trials, executor, stop_requested)
        if design.short_branches:
            short_finished = branches(trials.finished())
        elif design.num_short_trials:
            short_trials = Trials(opened, f"{name}-short", design, identity, is_shared=is_shared)
            search.run_all(
                short_trials,
                executor,
                stop_requested,
                num_trials=design.num_short_trials,
                num_steps=design.short_num_steps,
            )
            short_finished = short_trials.finished()
        judged = search.judged(trials)
    return _result(search, judged, Judged(design, search.rows, short_finished))


def _tell_design(search: Search) -> None:
    design, plan = search.design, search.bench.plan
    step_s = plan.predictions.step_time_s
    num_updates = (design.num_trials + design.has_reference) * design.num_steps
    if not design.short_branches:
        num_updates += design.num_short_trials * design.short_num_steps
    time = "" if step_s is None else f", about {num_updates * step_s / 60:.1f} min"
    search.observer.noted(
        f"a search of {design.num_trials} runs of {design.num_steps} updates each, of the "
        f"{design.run_num_steps:,} of the planned run{time}"
    )
    if design.has_reference:
        search.observer.noted("and of one of the plan's own values, for which a range has no place")
    if design.short_branches:
        search.observer.noted(
            f"and each branches off to a run of {design.short_num_steps} updates, to see how the "
            "best value moves with the length"
        )
    elif design.num_short_trials:
        search.observer.noted(
            f"and of {design.num_short_trials} runs of {design.short_num_steps} updates, to see "
            "how the best value moves with the length"
        )


def _result(search: Search, judged: Judged, short: Judged) -> TuneResult:
    design, plan = search.design, search.bench.plan
    horizon = None
    if design.num_short_trials and "learning_rate" in design.names:
        horizon = fitted_horizon(judged, short, "learning_rate")
    test = against_start(judged)
    chosen = taken(judged, test, horizon)
    start = search.planned_values()
    values: Mapping[str, Any] = start if chosen is None else chosen
    runs = [*judged.tried(is_short=False), *short.tried(is_short=True)]
    cost = cost_of(runs, design)
    sentence = verdict(judged, test, chosen)
    best = judged.best
    plateau = judged.plateau()
    not_kept = reason_not_to_keep(judged, chosen)
    run_settings = search.bench.order(values).settings
    if not_kept is None:
        lines = {name: judged.line(name, values) for name in design.names}
        facts = tuned_facts(run_settings, values, lines, sentence, cost)
        if not remember_tuned(search.asked.resolved.config, facts):
            not_kept = reason_not_remembered(search.asked.resolved.config)
    settings = plan.settings()
    return TuneResult(
        folder=str(search.folder.root),
        model=Path(settings.model).name,
        method=settings.method,
        names=design.names,
        start=start,
        best=None if best is None else dict(best.overrides),
        values=dict(values),
        is_changed=chosen is not None and chosen != start,
        verdict=sentence,
        runs=tuple(runs),
        plateau=plateau,
        region=judged.region(),
        test=test,
        horizon=horizon,
        cost=cost,
        num_steps=design.num_steps,
        run_num_steps=design.run_num_steps,
        num_search_rows=len(search.rows.search),
        num_test_rows=len(search.rows.test),
        sampler=design.sampler,
        seed=design.seed,
        facts_kept=not_kept is None,
        not_kept=not_kept,
        options=training_options(search.asked.resolved, values, run_settings),
    )
