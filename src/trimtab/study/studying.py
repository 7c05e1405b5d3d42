"""Run the arms, seed by seed, and compare them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.engine.observer import Observer
from trimtab.engine.stops import StopRequested
from trimtab.errors import ConfigError, DataError, Interrupted
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.fact import Facts
from trimtab.planning.fingerprint import digest
from trimtab.planning.plan import Plan
from trimtab.runs.atomic import write_json
from trimtab.runs.folder import RunFolder
from trimtab.runs.ledger import Ledger
from trimtab.runs.lock import run_lock
from trimtab.study.design import NOT_OF_THE_UPDATES, Arms, check_method
from trimtab.study.facts import remember_study
from trimtab.study.folder import StudyFolder, begin_study, open_study
from trimtab.study.result import StudyResult, arm_results
from trimtab.study.retuning import RETUNE_TRIALS, ArmRate, retuned_rate
from trimtab.study.trials import Trials, settings_key
from trimtab.study.words import duration_text, told_value
from trimtab.workflow.fingerprinting import identity_of
from trimtab.workflow.materials import fetch_model
from trimtab.workflow.planning import from_plan
from trimtab.workflow.stopping import stop_at_update_end
from trimtab.workflow.training_rows import rows_question
from trimtab.workflow.trial_plans import BATCH, LENGTH, TrialBench, trial_bench
from trimtab.workflow.trial_process import trial_server
from trimtab.workflow.trial_runs import TrialOrder, TrialRun


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a study is to be made. `equivalence_margin` is a share of the reference's loss."""

    num_seeds: int
    equivalence_margin: float
    retune: bool = False
    in_process: bool = False


@dataclass(frozen=True)
class Opened:
    """A study's folder with what its runs share; `subject` says what it is about."""

    folder: StudyFolder
    bench: TrialBench
    trials: Trials

    def seeds(self, number: int) -> tuple[int, ...]:
        """The configuration's seed and those that follow it."""
        first = self.bench.plan.settings().seed
        return tuple((first + position) % 2**32 for position in range(number))


def run_study(
    resolved: ResolvedConfig, arms: Arms, wanted: Wanted, observer: Observer
) -> StudyResult:
    """All runs that the study lacks, then its result, which is kept as a fact for later plans.

    Raises Interrupted where a stop is asked for: finished runs are kept, and the same call goes on.
    """
    check_method(arms, resolved)
    if wanted.retune and arms.name == "learning_rate":
        raise ConfigError(
            "--retune searches a learning rate for each value, and the study is of learning rates.",
            hint="Leave --retune out.",
        )
    with opened_study(resolved, arms.name, wanted.in_process, observer) as opened:
        bench = opened.bench
        first = [bench.order({arms.name: value}, seed=opened.seeds(1)[0]) for value in arms.values]
        values = _values(arms, first)
        _tell_start(opened, arms, wanted, observer)
        moved, rates = _moved(opened, arms, values, retune=wanted.retune)
        seeds = opened.seeds(wanted.num_seeds)
        runs = paired_runs(opened, moved, values, arms.name, seeds)
        result = StudyResult(
            folder=str(opened.folder.root),
            name=arms.name,
            arms=arm_results(values, runs, rates, equivalence_margin=wanted.equivalence_margin),
            seeds=seeds,
            equivalence_margin=wanted.equivalence_margin,
            rate_may_move=arms.rate_may_move,
            is_retuned=wanted.retune,
            device=_device(bench.plan),
            moved_along=_moved_along(arms, first),
        )
        result = replace(result, earlier_seeds=_earlier_seeds(opened.folder, result))
        write_json(opened.folder.result_json, result.to_json())
        remember_study(resolved.config, result)
        return result


def paired_runs(
    opened: Opened,
    moved: Sequence[Mapping[str, Any]],
    values: Sequence[Any],
    name: str,
    seeds: Sequence[int],
) -> list[list[TrialRun]]:
    """`[a][s]`: the run of arm a and seed s. Seed by seed, so that what is done of a study that
    is stopped is paired, and a machine that slows down slows all arms."""
    runs: list[list[TrialRun]] = [[] for _ in moved]
    for seed in seeds:
        for position, each in enumerate(moved):
            title = f"{name} {told_value(values[position])}, seed {seed}"
            runs[position].append(opened.trials.run(opened.bench.order(each, seed=seed), title))
    return runs


def _moved(
    opened: Opened, arms: Arms, values: Sequence[Any], *, retune: bool
) -> tuple[list[dict[str, Any]], list[ArmRate]]:
    """What each arm moves, and its learning rate, which it moves where that is searched for."""
    bench = opened.bench
    moved: list[dict[str, Any]] = [{arms.name: value} for value in arms.values]
    if not retune:
        return moved, [ArmRate(bench.order(each).settings.learning_rate) for each in moved]
    rates = [
        retuned_rate(bench, opened.trials, each, f"{arms.name} {told_value(value)}")
        for each, value in zip(moved, values, strict=True)
    ]
    return [
        {**each, "learning_rate": found.rate} for each, found in zip(moved, rates, strict=True)
    ], rates


def _moved_along(arms: Arms, orders: Sequence[TrialOrder]) -> dict[str, tuple[Any, ...]]:
    """Settings of an update that follow from what is compared; the arms' sizes of a batch, numbers
    of updates and learning rates are told beside them."""
    told = {arms.name, *BATCH, *LENGTH, "num_train_steps", "learning_rate", *NOT_OF_THE_UPDATES}
    settings = [asdict(order.settings) for order in orders]
    return {
        name: tuple(each[name] for each in settings)
        for name in settings[0]
        if name not in told and any(each[name] != settings[0][name] for each in settings)
    }


def _earlier_seeds(folder: StudyFolder, result: StudyResult) -> tuple[int, ...]:
    """The numbers of seeds, other than this one, over which a verdict of this result was read
    before: of the same reference, one of its values, and rates that were found alike. This reading
    is noted for the next."""
    looks = Ledger(folder.looks_jsonl)
    try:
        earlier = looks.read().records
    except ValueError:  # damaged, of which the comparison itself knows nothing
        earlier = ()
    values = json.loads(json.dumps([arm.value for arm in result.arms]))
    look = {"values": values, "is_retuned": result.is_retuned, "num_seeds": len(result.seeds)}
    if look not in earlier:
        looks.append(look)
    reference, *others = values
    told = {
        each["num_seeds"]
        for each in earlier
        if each["values"][0] == reference
        and each["is_retuned"] == result.is_retuned
        and any(value in each["values"][1:] for value in others)
    }
    return tuple(sorted(told - {len(result.seeds)}))


@contextmanager
def opened_study(
    resolved: ResolvedConfig, about: str, in_process: bool, observer: Observer
) -> Iterator[Opened]:
    """The study's folder, locked, with the plan that its runs share: an earlier start's where there
    was one, else made now.

    Raises ConfigError, DataError and DoesNotFit as planning does, DataError where the rows are
    others than those that the earlier plan was made on, and Interrupted for a stop inside.
    """
    fetch_model(resolved.config, observer)
    subject = _subject(resolved, about, in_process)
    root = _root(resolved, about, subject)
    folder, earlier = open_study(root, subject)

    def told() -> None:
        observer.noted("Stopping after this update; again to abort at once.")

    with (
        run_lock(RunFolder(root)),
        stop_at_update_end(told) as stop_requested,
        trial_server() as server,
    ):
        if earlier is None:
            bench = trial_bench(resolved, observer=observer)
            begin_study(folder, subject, {"about": about, "plan": bench.plan.to_json()})
        else:
            plan = Plan.from_json(earlier["plan"])
            bench = TrialBench(resolved, from_plan(plan, observer))
            _check_rows(bench)
        trials = Trials(folder, observer, stop_requested, server, in_process)
        try:
            yield Opened(folder, bench, trials)
        except (StopRequested, KeyboardInterrupt):
            raise Interrupted(
                f"the study was stopped; its finished runs are kept in {root}.",
                hint="The same command goes on with those that are left.",
            ) from None


def _subject(resolved: ResolvedConfig, about: str, in_process: bool) -> str:
    """A digest of what a study is about; more seeds, other values or margins are the same study."""
    return digest([about, *identity_of(resolved.config), in_process])


def _root(resolved: ResolvedConfig, about: str, subject: str) -> Path:
    asked = resolved.config.output_dir
    return Path("runs") / f"study-{about}-{subject[:8]}" if asked == "auto" else Path(asked)


def _check_rows(bench: TrialBench) -> None:
    rows = bench.planned.materials.rows(rows_question(bench.plan.settings()))
    planned = Facts().adding(bench.plan.facts).value("rows.digest")
    if rows.digest != planned:
        raise DataError(
            "the rows are not those that the study began with.",
            where=bench.plan.settings().dataset,
            hint="Put them back, or study anew with another --output-dir.",
        )


def _values(arms: Arms, orders: Sequence[TrialOrder]) -> tuple[Any, ...]:
    """What each arm's value came to; `auto` is what the plan took. Raises ConfigError where two
    arms would make the same runs."""
    keys = [settings_key(order) for order in orders]
    for position, key in enumerate(keys):
        if key in keys[:position]:
            earlier = arms.values[keys.index(key)]
            raise ConfigError(
                f"{arms.name} {told_value(earlier)} and {told_value(arms.values[position])} come "
                "to the same runs here.",
                hint="Compare values that differ in force.",
            )
    settings = [asdict(order.settings) for order in orders]
    return tuple(
        settings[position].get(arms.name, value) if value == "auto" else value
        for position, value in enumerate(arms.values)
    )


def _tell_start(opened: Opened, arms: Arms, wanted: Wanted, observer: Observer) -> None:
    orders = [
        opened.bench.order({arms.name: value}, seed=seed)
        for seed in opened.seeds(wanted.num_seeds)
        for value in arms.values
    ]
    num_values = len(arms.values)
    told = f"{len(orders)} runs: {num_values} values of {arms.name}, {wanted.num_seeds} seeds each"
    num_searched = num_values * RETUNE_TRIALS if wanted.retune else 0
    if num_searched:
        told += f"; before them {num_searched} that search each value's learning rate"
    tell_runs(opened, orders, told, observer, num_more=num_searched)


def tell_runs(
    opened: Opened, orders: Sequence[TrialOrder], told: str, observer: Observer, num_more: int = 0
) -> None:
    """How many runs there are, how many are done already, and how long the others may take."""
    num_kept = len({settings_key(order) for order in orders if opened.trials.has(order)})
    num_left = len({settings_key(order) for order in orders}) + num_more - num_kept
    if num_kept:
        told += f"; {num_kept} are done already"
    step_time_s = opened.bench.plan.predictions.step_time_s
    measured_s = opened.trials.mean_seconds
    if num_left and measured_s is not None:
        told += f"; about {duration_text(num_left * measured_s)} more"
    elif num_left and step_time_s is not None:
        updates_s = step_time_s * orders[0].settings.num_train_steps
        told += f"; about {duration_text(num_left * updates_s)}, loading and scoring aside"
    observer.noted(told)
    observer.noted(f"study folder: {opened.folder.root}")


def _device(plan: Plan) -> str:
    facts = Facts().adding(plan.facts)
    return facts.text("device.name") if "device.name" in facts else plan.settings().device
