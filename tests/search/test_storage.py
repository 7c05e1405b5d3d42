from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState
from support.search_runs import DESIGN, diverged, run_of

from trimtab.search import storage
from trimtab.search.storage import Trials, open_storage
from trimtab.workflow.trial_runs import TrialRun


def score(run: TrialRun) -> float | None:
    return run.eval_loss if run.diverged is None else None


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], Trials]:
    def trials() -> Trials:
        url = f"sqlite:///{tmp_path / 'shared.db'}"
        with open_storage(url) as database:
            return Trials(database, "search", DESIGN, "plan", is_shared=True)

    return trials


GONE = {"host": "here", "pid": 2**22 + 1, "started": 1.0}


@pytest.fixture
def left(opened: Callable[[], Trials], monkeypatch: pytest.MonkeyPatch) -> Trials:
    """With one trial under way, whose process is gone."""
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    trials = opened()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(storage, "this_process", lambda: GONE)
        assert trials.next(6) is not None
    return trials


def test_what_a_process_left_is_proposed_again_as_it_was(
    left: Trials, opened: Callable[[], Trials]
) -> None:
    (before,) = left.running()
    other = opened()
    other.take_up(score)
    assert other.running() == []
    again = other.next(6)
    assert again is not None and (again.number, again.params) == (before.number, before.params)


def test_what_another_has_just_taken_up_is_not_given_back(
    left: Trials, opened: Callable[[], Trials], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = opened(), opened()
    seen = two.running()
    one.take_up(score)
    # Between its asking and its naming itself.
    monkeypatch.setattr(one, "_begun", list)
    with monkeypatch.context() as slow:
        slow.setattr(storage, "this_process", lambda: None)
        assert one.next(6) is not None
    two.take_up(score)
    assert [trial.number for trial in one.running()] == [0]
    # By what it saw before that.
    monkeypatch.setattr(two, "running", lambda: seen)
    two.take_up(score)
    assert [trial.number for trial in one.running()] == [0]


def test_a_run_that_was_lost_is_told_as_failed_and_is_among_the_finished(
    opened: Callable[[], Trials],
) -> None:
    trials = opened()
    lost = diverged(1e-4)
    lost = TrialRun.from_json({**lost.to_json(), "ran_out_of_memory": True})
    for run in (lost, diverged(3e-4), run_of(3e-5, 1.0)):
        trial = trials.next(6)
        assert trial is not None
        trials.keep(trial.number, run, score(run))
    states = [each.state for each in trials._study.get_trials()]
    assert states == [TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    assert [each.run.overrides["learning_rate"] for each in trials.finished()] == [1e-4, 3e-4, 3e-5]
