"""Progress as it happens: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from trimtab.cli.common import tolerating_lost_stderr
from trimtab.planning.plan import Plan
from trimtab.report.happenings import event_text
from trimtab.report.words import visible
from trimtab.runs.records import EvaluationRecord, EventRecord, UpdateRecord

SECONDS_BEFORE_A_PLAIN_LINE = 2.0
SECONDS_BETWEEN_PLAIN_LINES = 15.0


class ConsoleObserver:
    """Shows what the observer is told of on a console; `show_plan` renders the plan.

    `run` is the run folder, once it is this process's.
    """

    def __init__(self, console: Console, show_plan: Callable[[Plan], None]) -> None:
        self.run: Path | None = None
        self._console = console
        self._show_plan = show_plan
        self._logging_steps = 1
        self._activity = ""
        self._total: int | None = None
        self._done = 0
        self._begun = self._told = time.perf_counter()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        self._activity_bar: TaskID | None = None
        self._training_bar: TaskID | None = None
        self._is_live = False
        if console.is_terminal:
            with tolerating_lost_stderr():
                self._progress.start()
                self._is_live = True

    def close(self) -> None:
        """Take the live bar down. Call it before anything else is printed."""
        if self._is_live:
            with tolerating_lost_stderr():
                self._progress.stop()

    def activity(self, name: str, total: int | None = None) -> None:
        self.activity_done()
        self._activity, self._total, self._done = name, total, 0
        self._begun = self._told = time.perf_counter()
        if self._is_live:
            with tolerating_lost_stderr():
                self._activity_bar = self._progress.add_task(name, total=total, detail="")

    def advanced(self, amount: int) -> None:
        self._done += amount
        if self._activity_bar is not None:
            self._progress.advance(self._activity_bar, amount)
        elif not self._is_live:
            self._tell_progress()

    def _tell_progress(self) -> None:
        now = time.perf_counter()
        if now - self._told > SECONDS_BETWEEN_PLAIN_LINES and self._total:
            self._told = now
            self._say(f"  {self._activity}: {self._done / self._total:.0%}")

    def activity_done(self) -> None:
        if not self._activity:
            return
        seconds = time.perf_counter() - self._begun
        if self._activity_bar is not None:
            self._progress.remove_task(self._activity_bar)
            self._activity_bar = None
        if seconds > SECONDS_BEFORE_A_PLAIN_LINE:
            self._say(f"  {self._activity}: {seconds:.1f} s")
        self._activity = ""

    def planned(self, plan: Plan) -> None:
        self._show_plan(plan)

    def run_opened(self, root: Path, plan: Plan) -> None:
        self.run = root
        self._logging_steps = plan.settings().logging_steps

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        detail = (
            f"loss {record.loss:.4f}  rate {record.learning_rate:.2e}  "
            f"{record.tokens_per_s:,.0f} tokens/s"
        )
        if self._is_live:
            with tolerating_lost_stderr():
                if self._training_bar is None:
                    self._training_bar = self._progress.add_task(
                        "training", total=num_steps, detail=""
                    )
                self._progress.update(self._training_bar, completed=record.step, detail=detail)
        elif record.step % self._logging_steps == 0 or record.step in {1, num_steps}:
            self._say(f"  update {record.step}/{num_steps}  epoch {record.epoch:.2f}  {detail}")

    def evaluated(self, record: EvaluationRecord) -> None:
        when = "before training" if record.step == 0 else f"after update {record.step}"
        self._say(f"  held-out loss {when}: {record.eval_loss:.4f} nats per token")

    def happened(self, event: EventRecord) -> None:
        told = event_text(event)
        self._say(f"  {event.event} at update {event.step}{': ' if told else ''}{told}")

    def noted(self, text: str) -> None:
        self._say(f"  {text}")

    def _say(self, text: str) -> None:
        with tolerating_lost_stderr():
            self._console.print(escape(visible(text)), soft_wrap=True)
