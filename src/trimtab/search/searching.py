"""One search under way: whose turn is next, what is run, and what is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from trimtab.engine.observer import Observer
from trimtab.engine.stops import StopRequested
from trimtab.errors import ConfigError, DoesNotFit, Interrupted
from trimtab.planning.rules.ruling import counted
from trimtab.search.budget import num_made_up_for
from trimtab.search.design import Design, make_design, planned_value
from trimtab.search.executors import Executor, executor_for
from trimtab.search.folder import Asked, TuneFolder
from trimtab.search.halves import Halves, halves
from trimtab.search.judging import Judged, search_loss, told
from trimtab.search.storage import REFERENCE_NUMBER, Trials
from trimtab.workflow.trial_plans import TrialBench
from trimtab.workflow.trial_runs import TrialRun, UpdatesDone, run_without_losses

WAIT_S = 2.0
"""How often the runs of other processes are looked at."""


@dataclass
class Search:
    """One search under way; `under_way` are its begun trials, by study."""

    bench: TrialBench
    design: Design
    rows: Halves
    folder: TuneFolder
    observer: Observer
    asked: Asked
    under_way: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, bench: TrialBench, asked: Asked, folder: TuneFolder, observer: Observer) -> Search:
        """Raises ConfigError and DataError where it cannot be made."""
        held_out = bench.order().eval_rows
        design = make_design(
            bench.plan,
            asked.names,
            num_eval_tokens=sum(row.num_tokens for row in held_out),
            budget=asked.budget,
            num_trials=asked.num_trials,
            sampler=asked.sampler,  # type: ignore[arg-type]
        )
        rows = halves(len(held_out), bench.plan.settings().data_seed)
        return cls(bench, design, rows, folder, observer, asked)

    def score(self, run: TrialRun) -> float | None:
        return search_loss(run, self.rows)

    def run_long(
        self, trials: Trials, executor: Executor, stop_requested: Callable[[], bool]
    ) -> None:
        """As many as designed, and more in place of those that diverged, until the sampler has
        nothing new to propose. Raises Interrupted.
        """
        number = self.design.num_trials
        while True:
            self.run_all(
                trials,
                executor,
                stop_requested,
                num_trials=number,
                num_steps=self.design.num_steps,
            )
            self.wait_for_reference(trials, stop_requested)
            num_more = self._num_made_up_for(trials, number - self.design.num_trials)
            if num_more == 0 or len(trials.finished()) < number:
                return
            number += num_more

    def _num_made_up_for(self, trials: Trials, num_already: int) -> int:
        """0 where the number of runs was asked for, or a grid was."""
        if self.asked.num_trials is not None or self.design.sampler == "grid":
            return 0
        return num_made_up_for(self.judged(trials).runs, self.design, num_already)

    def judged(self, trials: Trials) -> Judged:
        """What the finished runs of the long length say."""
        return Judged(self.design, self.rows, trials.finished(), trials.reference)

    def run_all(
        self,
        trials: Trials,
        executor: Executor,
        stop_requested: Callable[[], bool],
        *,
        num_trials: int,
        num_steps: int,
    ) -> None:
        """The trials of one length that are left; those of other processes are waited for.

        Raises Interrupted.
        """
        with self._giving_back(trials), trials.beating(self.under_way):
            while True:
                trials.take_up(self.score)
                self._run_left(trials, executor, stop_requested, num_trials, num_steps)
                number = len(trials.running())
                if number == 0:
                    return
                self._wait(number, stop_requested)

    def _run_left(
        self,
        trials: Trials,
        executor: Executor,
        stop_requested: Callable[[], bool],
        num_trials: int,
        num_steps: int,
    ) -> None:
        progress = Progress(self.observer)
        found = executor.results(
            lambda: self._next(trials, progress, num_trials, num_steps),
            on_update=progress.updated,
            stop_requested=stop_requested,
        )
        for number, run in found:
            trials.keep(number, run, self.score(run))
            self.under_way.discard(number)
            progress.done()
            self.tell(trials, run)
            if stop_requested():
                raise StopRequested

    def _wait(self, number: int, stop_requested: Callable[[], bool]) -> None:
        self.observer.activity(f"waiting for {counted(number, 'run')} of other processes", None)
        started = time.monotonic()
        while time.monotonic() - started < WAIT_S:
            if stop_requested():
                raise StopRequested
            time.sleep(WAIT_S / 10)
        self.observer.activity_done()

    def _next(
        self, trials: Trials, progress: Progress, num_trials: int, num_steps: int
    ) -> tuple[int, Any] | None:
        """The next order. What was run before is not run again: it would come out the same.

        What is under way is waited for, since there is nothing to repeat yet.
        """
        while (trial := trials.next(num_trials)) is not None:
            self.under_way.add(trial.number)
            overrides = self.design.overrides(trial.params)
            same = [one.run for one in trials.finished() if one.run.overrides == overrides]
            if same:
                trials.repeat(trial.number, same[0], self.score(same[0]))
                self.under_way.discard(trial.number)
                continue
            if self._is_under_way(trials, trial.number, overrides):
                trials.give_back(trial.number)
                self.under_way.discard(trial.number)
                return None
            place = len(trials.finished()) + len(self.under_way)
            try:
                order = self.bench.order(overrides, num_steps=num_steps)
            except (ConfigError, DoesNotFit) as error:
                self._keep_impossible(trials, trial.number, overrides, num_steps, error)
                continue
            order = replace(order, branch_num_steps=self._branch_num_steps)
            in_place = ", in place of what diverged" if place > self.design.num_trials else ""
            title = f"run {place} of {num_trials}{in_place}: {told(overrides)}"
            progress.begun(title, order.num_updates)
            return trial.number, order
        return None

    def _keep_impossible(
        self,
        trials: Trials,
        number: int,
        overrides: Mapping[str, Any],
        num_steps: int,
        error: ConfigError | DoesNotFit,
    ) -> None:
        """What no run can have, such as a rate under the schedule's lowest or a rank that does not
        fit, is not asked again."""
        run = run_without_losses(
            overrides,
            seed=self.design.seed,
            num_steps=num_steps,
            reason=f"cannot be run: {error.what.rstrip('.')}",
        )
        trials.keep(number, run, None)
        self.under_way.discard(number)
        self.tell(trials, run)

    def _is_under_way(self, trials: Trials, number: int, overrides: Mapping[str, Any]) -> bool:
        return any(
            other.number != number and self.design.overrides(other.params) == overrides
            for other in trials.under_way()
        )

    @property
    def _branch_num_steps(self) -> int | None:
        return self.design.short_num_steps if self.design.short_branches else None

    @contextmanager
    def _giving_back(self, trials: Trials) -> Iterator[None]:
        try:
            yield
        except (StopRequested, KeyboardInterrupt):
            number = len(trials.finished())
            kept = "1 finished run is kept" if number == 1 else f"{number} finished runs are kept"
            raise Interrupted(
                f"{self.folder.root}: stopped; {kept}.",
                hint="Go on with the same command.",
            ) from None
        finally:
            for number in self.under_way:
                trials.give_back(number)
            self.under_way.clear()

    def run_reference(self, trials: Trials, stop_requested: Callable[[], bool]) -> None:
        """The plan's own values, where the space has no place for one of them, unless another
        process is at it."""
        if not self.design.has_reference or not trials.claims_reference():
            return
        values = self.planned_values()
        progress = Progress(self.observer)
        progress.begun(f"the plan's own: {told(values)}", self.design.num_steps)
        order = self.bench.order(values, num_steps=self.design.num_steps)
        with self._giving_back(trials), trials.beating({REFERENCE_NUMBER}):
            with closing(executor_for("local", self.design.names)) as alone:
                ((_, found),) = alone.results(
                    _once(order), on_update=progress.updated, stop_requested=stop_requested
                )
            trials.keep_reference(found)
        progress.done()
        self.tell(trials, found)

    def wait_for_reference(self, trials: Trials, stop_requested: Callable[[], bool]) -> None:
        """Until another process has made it, or has died over it and this one has."""
        while self.design.has_reference and trials.reference is None:
            self.run_reference(trials, stop_requested)
            if trials.reference is None:
                with self._giving_back(trials):
                    self._wait(1, stop_requested)

    def planned_values(self) -> dict[str, Any]:
        return {name: planned_value(self.bench.plan, name) for name in self.design.names}

    def tell(self, trials: Trials, run: TrialRun) -> None:
        """One line: what it came to, and the best so far."""
        loss = self.score(run)
        came_to = f"no loss, {run.diverged}" if loss is None else f"{loss:.4f} nats per token"
        best = self.judged(trials).best
        so_far = "" if best is None else f"; best so far {told(best.overrides)}"
        self.observer.noted(f"{told(run.overrides)}: {came_to}{so_far}")


class Progress:
    """One trial's updates as an observer's activity."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._done = 0

    def begun(self, name: str, num_steps: int) -> None:
        self._done = 0
        self._observer.activity(name, num_steps)

    def updated(self, done: UpdatesDone) -> None:
        self._observer.advanced(done.num_updates - self._done)
        self._done = done.num_updates

    def done(self) -> None:
        self._observer.activity_done()


def _once(order: Any) -> Callable[[], tuple[int, Any] | None]:
    left = [(0, order)]
    return lambda: left.pop() if left else None
