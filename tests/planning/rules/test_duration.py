"""Guide rows 6 and 7: updates, epochs, and which of the two lengths decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning.facts import CARD_80GB, data, planned

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import resolve
from trimtab.planning.plan import Plan
from trimtab.planning.rules.duration import num_updates

ROWS = data(num_rows=897)


def plan_of(text: str, tmp_path: Path, *options: tuple[str, str]) -> Plan:
    file = tmp_path / "config.yaml"
    file.write_text(f"model: m\ndataset: d.jsonl\neval_dataset: none\n{text}")
    return planned(resolve(file=file, options=options), rows=ROWS, device=CARD_80GB)


@pytest.mark.parametrize(
    ("epochs", "num_rows", "batch", "expected"),
    [
        (3, 897, 16, 171),
        (1, 16, 16, 1),
        (1, 17, 16, 2),
        (0.5, 897, 16, 29),
        (0.1, 160, 16, 1),
        (0.7, 1600, 16, 70),  # 0.7 × 100 is 70 and not 70.00000000000001
        (2.5, 100, 10, 25),
    ],
)
def test_updates_of_epochs(epochs: float, num_rows: int, batch: int, expected: int) -> None:
    assert num_updates(epochs, num_rows, batch) == expected


def test_auto_is_three_epochs(tmp_path: Path) -> None:
    plan = plan_of("", tmp_path)
    assert plan.decision("num_train_epochs").value == 3.0
    assert plan.decision("num_train_epochs").origin == "default"
    assert plan.decision("max_steps").value == -1
    assert plan.settings().num_train_steps == 171
    epochs = plan.decision("num_train_epochs")
    assert "57 updates" in epochs.because
    assert [one.value for one in epochs.alternatives] == [1.0, 6.0]
    assert "342 updates" in epochs.alternatives[1].because
    assert epochs.limits is not None and "no evidence" in epochs.limits


def test_epochs_alone(tmp_path: Path) -> None:
    plan = plan_of("num_train_epochs: 4\nglobal_batch_size: 16\n", tmp_path)
    assert plan.settings().num_train_steps == 228
    assert plan.decision("num_train_epochs").origin == "user"
    assert plan.decision("num_train_epochs").alternatives == ()
    assert plan.warnings == ()


def test_max_steps_alone(tmp_path: Path) -> None:
    plan = plan_of("max_steps: 114\n", tmp_path)
    assert plan.settings().num_train_steps == 114
    assert plan.decision("max_steps").value == 114
    assert plan.decision("max_steps").origin == "user"
    epochs = plan.decision("num_train_epochs")
    assert (epochs.value, epochs.origin) == (2.0, "rule")
    assert "max_steps 114" in epochs.because


def test_unset_max_steps_is_minus_one(tmp_path: Path) -> None:
    assert plan_of("max_steps: -1\n", tmp_path).settings().num_train_steps == 171


def test_in_one_file_epochs_win_and_both_lengths_are_told(tmp_path: Path) -> None:
    plan = plan_of("num_train_epochs: 3\nmax_steps: 500\n", tmp_path)
    assert plan.settings().num_train_steps == 171
    assert plan.settings().num_train_epochs == 3.0
    loser = plan.decision("max_steps")
    assert loser.value == -1
    told = (loser.because, plan.decision("num_train_epochs").because, *plan.warnings)
    assert len(told) == 3
    for sentence in told:
        assert "171 updates" in sentence
        assert "max_steps 500" in sentence
        assert "config.yaml:5" in sentence


def test_steps_on_the_command_line_win_over_the_files_epochs(tmp_path: Path) -> None:
    plan = plan_of("num_train_epochs: 3\n", tmp_path, ("max_steps", "10"))
    assert plan.settings().num_train_steps == 10
    assert plan.decision("max_steps").because.startswith("set by --max-steps")
    told = (
        plan.decision("max_steps").because,
        plan.decision("num_train_epochs").because,
        *plan.warnings,
    )
    assert len(told) == 3
    for sentence in told:
        assert "num_train_epochs 3" in sentence
        assert "config.yaml:4" in sentence


def test_epochs_on_the_command_line_win_over_the_files_steps(tmp_path: Path) -> None:
    plan = plan_of("max_steps: 500\n", tmp_path, ("num_train_epochs", "2"))
    assert plan.settings().num_train_steps == 226  # of 8: 16 would leave 114 updates
    assert "max_steps 500" in plan.decision("num_train_epochs").because


def test_a_later_layer_of_the_same_field_names_the_earlier(tmp_path: Path) -> None:
    plan = plan_of("max_steps: 500\n", tmp_path, ("max_steps", "10"))
    assert plan.settings().num_train_steps == 10
    assert "over 500 in " in plan.decision("max_steps").because


def test_accumulation_and_ranks_do_not_change_the_count() -> None:
    values = {"global_batch_size": 16, "eval_dataset": "none"}
    counts = {
        planned(rows=ROWS, per_device_train_batch_size=micro, num_ranks=ranks, **values)
        .settings()
        .num_train_steps
        for micro, ranks in [(16, 1), (4, 1), (1, 1), (4, 2)]
    }
    assert counts == {171}


@pytest.mark.parametrize(("epochs", "told"), [(1e308, "6.10e+309"), (1e6, "6.10e+7")])
def test_more_updates_than_a_run_may_have_are_refused(epochs: float, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(num_train_epochs=epochs)
    assert told in caught.value.what
