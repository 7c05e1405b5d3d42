from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import resolve
from trimtab.report.page import write_report
from trimtab.report.tune_figures import plateau_points
from trimtab.report.tune_page import render_tune_page, write_tune_page
from trimtab.report.tune_story import headline, horizon_sentence, plateau_sentence
from trimtab.runs.atomic import write_json
from trimtab.search.paired import PairedDifference
from trimtab.search.ranges import range_around
from trimtab.search.record import Cost, Horizon, TriedRun, TuneResult

NEAR = PairedDifference(0.01, -0.02, 0.04, 0.015, 20)
FAR = PairedDifference(0.5, 0.4, 0.6, 0.05, 20)
SAME = PairedDifference(0.0, 0.0, 0.0, 0.0, 20)


def run_of(rate: float, loss: float | None, near: PairedDifference | None) -> TriedRun:
    diverged = None if loss is not None else "not finite at update 3: <b>loss</b>"
    return TriedRun(
        0, {"learning_rate": rate}, loss, near, diverged, rate == 1e-4, False, 20, 900, 90, 1.5
    )


RESULT = TuneResult(
    folder="runs/tuned",
    model="<i>model</i>",
    method="lora",
    names=("learning_rate",),
    start={"learning_rate": 1e-4},
    best={"learning_rate": 3e-4},
    values={"learning_rate": 3e-4},
    is_changed=True,
    verdict="learning_rate 0.0003 is taken",
    runs=(
        run_of(3e-4, 1.0, SAME),
        run_of(1e-4, 1.5, FAR),
        run_of(6e-4, 1.01, NEAR),
        run_of(2e-3, None, None),
    ),
    plateau={"learning_rate": (3e-4, 6e-4)},
    region={"learning_rate": (2e-4, 9e-4)},
    test=FAR,
    horizon=None,
    cost=Cost(3600, 360, 6.0, 0.3),
    num_steps=20,
    run_num_steps=400,
    num_search_rows=20,
    num_test_rows=20,
    sampler="local",
    seed=42,
    facts_kept=True,
)


def test_the_figures_data_is_sorted_and_has_what_diverged() -> None:
    points = plateau_points(RESULT, "learning_rate")
    assert points is not None
    assert points.values == (1e-4, 3e-4, 6e-4)
    assert points.losses == (1.5, 1.0, 1.01)
    assert points.half_widths == pytest.approx((0.1, 0.0, 0.03))
    assert (points.diverged, points.start, points.region) == ((2e-3,), 1e-4, (2e-4, 9e-4))
    assert (points.best, points.best_loss) == (3e-4, 1.0)
    assert plateau_points(replace(RESULT, best=None), "learning_rate") is None


def test_a_best_without_a_place_on_the_axis_is_drawn_without_its_ring() -> None:
    """A weight decay of 0 that is the best, beside runs of others."""

    def named(run: TriedRun, decay: float) -> TriedRun:
        return replace(run, values={"weight_decay": decay})

    decays = (0.0, 0.01, 0.1, 1.0)
    result = replace(
        RESULT,
        names=("weight_decay",),
        start={"weight_decay": 0.0},
        best={"weight_decay": 0.0},
        values={"weight_decay": 0.0},
        runs=tuple(map(named, RESULT.runs, decays)),
        plateau={"weight_decay": (0.0, 0.01)},
        region={},
    )
    points = plateau_points(result, "weight_decay")
    assert points is not None and points.best_loss is None
    assert 'class="chart chart-plateau-weight_decay"' in render_tune_page(result)


def test_the_page_says_it_all_and_runs_nothing() -> None:
    page = render_tune_page(RESULT)
    assert "default-src 'none'" in page
    assert "<script" not in page and " style=" not in page
    assert "<b>loss</b>" not in page and "<i>model</i>" not in page
    assert 'class="chart chart-plateau-learning_rate"' in page
    for told in ("3e-4 to 6e-4", "3,600 tokens trained and 360 scored", "seed 42", "2e-3"):
        assert told in page


def test_a_page_of_nothing_but_divergence() -> None:
    lost = replace(
        RESULT,
        best=None,
        runs=RESULT.runs[-1:],
        plateau={},
        region={},
        test=None,
        is_changed=False,
        verdict="every run diverged, so nothing was found",
    )
    page = render_tune_page(lost)
    assert "Every run diverged" in page and "chart-plateau" not in page


def test_sentences() -> None:
    assert "next plan" in headline(RESULT)
    both = replace(
        RESULT,
        names=("learning_rate", "weight_decay"),
        values={"learning_rate": 3e-4, "weight_decay": 0.05},
    )
    assert "--learning-rate 3e-4 --weight-decay 0.05" in headline(both)
    assert "3e-4 to 6e-4" in plateau_sentence(RESULT)
    assert "the best lies, at 90%, with learning_rate in 2e-4 to 9e-4" in plateau_sentence(RESULT)
    assert "that was run" not in plateau_sentence(RESULT)
    edge = replace(RESULT, best={"learning_rate": 1e-4}, region={"learning_rate": (1e-4, 2e-3)})
    told = plateau_sentence(edge)
    assert "smallest that was run: a better one may lie below" in told
    assert "search from --learning-rate 1e-4" in told and "at 90%" not in told
    assert "was not measured" in horizon_sentence(RESULT)
    open_ = Horizon(-0.3, -0.9, 0.3, 60, 20)
    assert "unidentified, and not used" in horizon_sentence(replace(RESULT, horizon=open_))
    sure = Horizon(-0.3, -0.4, -0.2, 60, 20)
    assert "unidentified" not in horizon_sentence(replace(RESULT, horizon=sure))


def edge_of(name: str, best: float, *others: float) -> str:
    runs = [replace(RESULT.runs[0], values={name: value}) for value in (best, *others)]
    best_of = {name: best}
    plateau = {name: (best, best)}
    return plateau_sentence(
        replace(RESULT, names=(name,), best=best_of, runs=tuple(runs), plateau=plateau, region={})
    )


@pytest.mark.parametrize(
    ("name", "best", "other"),
    [("learning_rate", 0.02, 1e-3), ("learning_rate", 1e-6, 1e-3), ("weight_decay", 0.1, 0.01)],
)
def test_a_search_from_an_end_looks_beyond_it(name: str, best: float, other: float) -> None:
    assert "would look there" in edge_of(name, best, other)
    low, high = range_around(name, best)
    assert low < best < high


@pytest.mark.parametrize(
    ("name", "best", "other"),
    [
        ("weight_decay", 1.0, 0.1),
        ("lora_r", 256, 64),
        ("lora_r", 4, 16),
        ("warmup_ratio", 0.9, 0.5),
    ],
)
def test_no_search_is_advised_that_would_not_look_there(
    name: str, best: float, other: float
) -> None:
    told = edge_of(name, best, other)
    assert "that was run" in told and "would look there" not in told and "trimtab study" in told


def test_nothing_lies_below_zero() -> None:
    assert "that was run" not in edge_of("weight_decay", 0.0, 0.1, 0.3)


def test_what_is_not_remembered_is_told_with_the_reason() -> None:
    lost = replace(RESULT, facts_kept=False, not_kept="the rows are not local files")
    told = headline(replace(lost, options={"learning_rate": 3e-4}))
    assert "next plan" not in told
    assert "Not remembered for `auto`: the rows are not local files. Train with it by:" in told
    assert told.endswith("--learning-rate 3e-4")


def test_options_are_written_as_they_have_to_be_read() -> None:
    options = {
        "global_batch_size": 16,
        "learning_rate": 1.23456e-4,
        "max_steps": 12_345,
        "lr_scheduler_kwargs": {"num_decay_steps": 4},
    }
    told = headline(replace(RESULT, names=("global_batch_size",), options=options))
    words = shlex.split(told.partition("Train with it by: ")[2])
    read = resolve(values={"model": "m", "dataset": "d.jsonl"}, options=list(pairs(words)))
    assert {name: getattr(read.config, name) for name in options} == options


def pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    for option, text in zip(words[::2], words[1::2], strict=True):
        yield option.removeprefix("--").replace("-", "_"), text


def test_written_and_read_back(tmp_path: Path) -> None:
    assert TuneResult.from_json(RESULT.to_json()) == RESULT
    with pytest.raises(ConfigError, match="no folder of a finished search"):
        write_tune_page(tmp_path)
    write_json(tmp_path / "tune.json", RESULT.to_json())
    assert write_tune_page(tmp_path).read_text(encoding="utf-8") == render_tune_page(RESULT)
    write_json(tmp_path / "base.json", {})
    (tmp_path / "report.html").unlink()
    assert write_report(tmp_path).read_text(encoding="utf-8") == render_tune_page(RESULT)
    (tmp_path / "tune.json").write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        write_tune_page(tmp_path)
