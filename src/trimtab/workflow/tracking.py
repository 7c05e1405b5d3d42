"""Metrics to a tracker's own library, beside the ledgers and never in their place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

from trimtab.engine.observer import Observer
from trimtab.errors import ConfigError
from trimtab.planning.plan import Plan
from trimtab.runs.records import EvaluationRecord, EventRecord, UpdateRecord

PROJECT: Final = "trimtab"
LOGIN_TIMEOUT_S: Final = 30
"""How long a question for a key may hold a run up."""
LOGGED: Final = (
    "loss",
    "learning_rate",
    "grad_norm",
    "epoch",
    "tokens_per_s",
    "num_tokens",
    "peak_memory_bytes",
)
"""Of an update's record; the names are those of metrics.jsonl."""


class Tracker(Protocol):
    """One run in a tracker's library."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Metrics at an update."""

    def finish(self) -> None:
        """Everything is flushed; the run is over."""


OpenTracker = Callable[[Path, Mapping[str, Any]], Tracker]
"""Opens a tracker for a run folder and its hyperparameters. Raises ImportError without the
library, and whatever the library does."""


class TrackingObserver:
    """Passes everything on, and metrics to the tracker as well.

    A tracker that fails is told once and left: the run goes on, and metrics.jsonl has everything.
    """

    def __init__(self, shown: Observer, name: str, opened: Callable[[], Tracker] | None) -> None:
        self._shown = shown
        self._name = name
        self._opened = opened
        self._tracker: Tracker | None = None

    def activity(self, name: str, total: int | None = None) -> None:
        self._shown.activity(name, total)

    def advanced(self, amount: int) -> None:
        self._shown.advanced(amount)

    def activity_done(self) -> None:
        self._shown.activity_done()

    def planned(self, plan: Plan) -> None:
        self._shown.planned(plan)

    def run_opened(self, root: Path, plan: Plan) -> None:
        self._shown.run_opened(root, plan)

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        self._shown.updated(record, num_steps)
        values = {f"train/{name}": record.to_json()[name] for name in LOGGED}
        self._asked(lambda tracker: tracker.log(values, record.step))

    def evaluated(self, record: EvaluationRecord) -> None:
        self._shown.evaluated(record)
        values = {"eval/loss": record.eval_loss}
        self._asked(lambda tracker: tracker.log(values, record.step))

    def happened(self, event: EventRecord) -> None:
        self._shown.happened(event)

    def noted(self, text: str) -> None:
        self._shown.noted(text)

    def open(self) -> None:
        """Open the tracker, if there is one; where it cannot be opened, that is told."""
        if self._opened is None:
            return
        try:
            self._tracker = self._opened()
        except Exception as error:  # not reachable, not logged in, a server that is down
            self._shown.noted(_left(self._name, error))

    def finish(self) -> None:
        """Close the tracker, if it is still there."""
        self._asked(lambda tracker: tracker.finish())
        self._tracker = None

    def _asked(self, ask: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            ask(self._tracker)
        except Exception as error:  # whatever a tracker's library raises is no reason to stop
            self._tracker = None
            self._shown.noted(_left(self._name, error))


def tracking(shown: Observer, report_to: str, run: Path, plan: Plan) -> TrackingObserver:
    """The observer that feeds the plan's tracker, or none, once it is opened."""
    if report_to == "none":
        return TrackingObserver(shown, report_to, None)
    values = {one.name: one.value for one in plan.decisions}
    return TrackingObserver(shown, report_to, lambda: TRACKERS[report_to](run, values))


def refuse_without_library(report_to: str) -> None:
    """Raises ConfigError, before anything is spent on the run, where the library is not there."""
    if report_to != "none" and find_spec(report_to) is None:
        raise ConfigError(
            f"report_to is {report_to}, whose package is not installed.",
            hint=f"Install it with `pip install 'trimtab[{report_to}]'`, or leave report_to out.",
        )


def _left(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return (
        f"The tracker {name} failed ({type(error).__name__}: {reason}); the run goes on without "
        "it, and metrics.jsonl has everything."
    )


# The libraries ----------------------------------------------------------------------------------


class _TensorBoard:
    """Event files under the run folder's `tensorboard/`."""

    def __init__(self, run: Path, values: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run / "tensorboard"))
        lines = "\n".join(f"    {name}: {value}" for name, value in values.items())
        self._writer.add_text("hyperparameters", lines)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


class _WandB:
    """A run named after the folder; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, run: Path, values: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            dir=str(run),
            config=dict(values),
            settings=wandb.Settings(login_timeout=LOGIN_TIMEOUT_S),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        self._run.finish()


class _MLflow:
    """A run at MLFLOW_TRACKING_URI; without one, a SQLite file in the run folder."""

    def __init__(self, run: Path, values: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{(run / 'mlflow.db').absolute()}")
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        mlflow.start_run(run_name=run.name)
        mlflow.log_params({name: str(value)[:500] for name, value in values.items()})
        self._mlflow: Any = mlflow

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def finish(self) -> None:
        self._mlflow.end_run()


class _Trackio:
    """A run in Trackio's local database; TRACKIO_SPACE_ID sends it to a Space."""

    def __init__(self, run: Path, values: Mapping[str, Any]) -> None:
        import trackio

        trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=run.name, config=dict(values)
        )
        self._trackio: Any = trackio

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(values), step=step)

    def finish(self) -> None:
        self._trackio.finish()


TRACKERS: Final[Mapping[str, OpenTracker]] = {
    "mlflow": _MLflow,
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _WandB,
}
"""By their packages' names."""
