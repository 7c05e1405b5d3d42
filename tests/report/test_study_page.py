"""The page of a study: its data, its drawings, its words, and what it escapes."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.studies import arm, four_verdicts, guide_result, study_of

import trimtab
from trimtab.errors import ConfigError
from trimtab.report.study_drawing import draw_arm_curves, draw_forest
from trimtab.report.study_figures import arm_curves, forest_plot
from trimtab.report.study_page import render_study_page, study_lead
from trimtab.study.folder import StudyFolder, begin_study
from trimtab.study.statistics import compare
from trimtab.study.words import reason_text, study_sentence


def page_of(result: object) -> str:
    return render_study_page(json.loads(json.dumps(result.to_json())))  # type: ignore[attr-defined]


def text_of(page: str) -> str:
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def test_the_forest_has_each_effect_with_its_interval_as_shares() -> None:
    plot = forest_plot(four_verdicts())
    assert plot is not None
    assert [row.verdict for row in plot.rows] == [
        "better",
        "worse",
        "equivalent",
        "undecided",
        "worse",
    ]
    better = plot.rows[0]
    assert better.effect == pytest.approx(-0.05)
    assert better.low is not None and better.high is not None
    assert better.low < better.effect < better.high < 0
    assert (plot.rows[-1].effect, plot.rows[-1].low) == (None, None)
    assert (plot.reference, plot.margin) == ("0.0001", 0.005)


def test_without_an_effect_there_is_no_forest() -> None:
    assert forest_plot(study_of(arm(1e-4), arm(1.0, (math.inf,) * 3))) is None


def test_one_seed_has_a_point_and_no_interval() -> None:
    one = compare([2.0], [1.9], equivalence_margin=0.005)
    result = study_of(arm(1e-4), replace(arm(3e-4, (1.9, 1.9, 1.9)), comparison=one))
    plot = forest_plot(result)
    assert plot is not None
    assert (plot.rows[0].effect, plot.rows[0].low) == (pytest.approx(-0.05), None)
    assert "0.0003: undecided" in draw_forest(plot)
    assert "take more seeds: --seeds 3" in text_of(page_of(result))


def test_curves_are_the_mean_of_the_seeds_over_the_share_of_the_run() -> None:
    curves = arm_curves(study_of(arm(1e-4), arm(3e-4, (1.9, 1.91, 1.89))))
    assert [one.label for one in curves] == ["0.0001", "0.0003"]
    assert curves[0].curve.x == pytest.approx((1 / 3, 2 / 3, 1))
    assert curves[0].curve.y == pytest.approx((2.5, 2.2, 2.0))


def test_a_curve_that_ends_early_ends_where_it_did() -> None:
    ended = replace(arm(1.0, (math.inf,) * 3), curves=((3.0,), (2.0, 2.5), ()))
    (_, one) = arm_curves(study_of(arm(1e-4), ended))
    assert one.curve.x == pytest.approx((1 / 3, 2 / 3))
    assert one.curve.y == pytest.approx((2.5, 2.5))


def test_lines_of_many_values_differ() -> None:
    curves = arm_curves(study_of(arm(0), *(arm(i, (1.9, 1.91, 1.89)) for i in range(1, 8))))
    root = ElementTree.fromstring(draw_arm_curves(curves))
    colours = {each.get("fill") for each in root.iter("use")}
    assert len(colours) == 3


def test_an_arm_that_measured_nothing_has_no_time_and_no_memory() -> None:
    nothing = replace(arm(1.0, (math.inf,) * 3), seconds=None, peak_memory_bytes=None)
    text = text_of(page_of(study_of(arm(1e-4), nothing)))
    assert "0.0001 3 4,096 2.0000 2.0200 1.9800" in text
    assert "1 worse – – – – – " in text


def test_the_page_tells_the_level_the_updates_and_what_was_looked_at_before() -> None:
    two = study_of(arm(16), arm(32, (1.9, 1.91, 1.89), num_steps=2), name="global_batch_size")
    text = text_of(page_of(two))
    assert "2 to 3 updates a run" in text and "95% interval, nats" in text
    assert "looks do in more" not in text
    assert "99% interval, nats" in text_of(page_of(four_verdicts()))
    again = replace(two, earlier_seeds=(2,))
    assert "Verdicts were read over 2 seeds before." in text_of(page_of(again))
    edge = replace(two, arms=(two.arms[0], replace(two.arms[1], rate_at_edge=True)))
    assert "found for 32 is an end of what was tried" in text_of(page_of(edge))


def test_pictures_keep_a_width_at_which_they_can_be_read() -> None:
    page = page_of(four_verdicts())
    assert ".wide > .chart { min-width: 34rem; }" in page
    assert page.count('<div class="wide"') == page.count("<svg") == 2


def test_drawings_are_plain_elements_and_the_same_each_time() -> None:
    plot, curves = forest_plot(four_verdicts()), arm_curves(four_verdicts())
    assert plot is not None
    for draw in (lambda: draw_forest(plot), lambda: draw_arm_curves(curves)):
        svg = draw()
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-label")
        for element in root.iter():
            assert element.tag not in {"style", "script", "metadata", "image", "a"}
            assert "style" not in element.attrib
        assert "#0000" not in svg
        assert draw() == svg


def test_the_page_says_what_was_found() -> None:
    text = text_of(page_of(four_verdicts()))
    for expected in (
        "Does learning_rate matter here?",
        "6 values over 3 seeds that they share, 3 updates a run, everything else held",
        "Differences within 0.5% of the reference's loss count as none.",
        "0.0003 better 1.9000 -0.1000 nats (-5.00%)",
        "1e-05 worse",
        "0.00011 equivalent",
        "0.0006 undecided",
        "more seeds would settle it",
        "came to no loss in 3 of 3 seeds, the reference in 0; not finite: a loss",
        "The intervals of the 5 comparisons hold together at 95% (Bonferroni).",
        "12.5 s 1.50 GiB",
    ):
        assert expected in text, expected


def test_the_page_warns_of_rates_that_were_not_retuned() -> None:
    result = study_of(arm(16), arm(32, (1.9, 1.91, 1.89)), name="lora_r", rate_may_move=True)
    assert "was not retuned for each value" in text_of(page_of(result))
    retuned = study_of(arm(16), arm(32, (1.9, 1.91, 1.89)), name="lora_r", is_retuned=True)
    text = text_of(page_of(retuned))
    assert "was not retuned" not in text and "learning rate" in text


def test_the_policy_allows_the_pages_own_style_alone() -> None:
    for page in (page_of(four_verdicts()), page_of(guide_result())):
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
        style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
        assert policy is not None and style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"style-src 'sha256-{digest}'" in unescape(policy[1])
        assert "default-src 'none'" in unescape(policy[1])
        assert "<script" not in page and " style=" not in page and "http" not in text_of(page)


def test_values_cannot_write_the_page() -> None:
    hostile = "<script>alert(1)</script>"
    result = study_of(arm((hostile,)), arm((hostile, "\u202eb"), (1.9, 1.91, 1.89)))
    page = page_of(result)
    assert "<script" not in page and "\u202e" not in page
    assert "&lt;script&gt;" in page


def test_the_guides_page_has_every_claim_with_its_outcome() -> None:
    text = text_of(page_of(guide_result()))
    for claim in guide_result().claims:
        assert f"{claim.row} {claim.says} {claim.outcome} {claim.figures}" in text


def test_the_report_command_writes_a_studys_page_too(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    begin_study(folder, "subject", {"about": "learning_rate", "plan": {}})
    with pytest.raises(ConfigError, match="no result yet"):
        trimtab.write_report(tmp_path)
    folder.result_json.write_text(json.dumps(four_verdicts().to_json()), encoding="utf-8")
    page = trimtab.write_report(tmp_path)
    assert page == tmp_path / "report.html"
    assert page.read_text(encoding="utf-8") == page_of(four_verdicts())


def test_seeds_that_changed_nothing_ask_for_no_reason_of_lost_runs() -> None:
    result = study_of(arm(16), arm(32), name="lora_r")
    same = compare((2.0, 2.0), (1.9, 1.9), equivalence_margin=0.005)
    told = reason_text(replace(result.arms[1], comparison=same))
    assert told.startswith("the seeds changed nothing")
    assert "came to no loss" not in told


def test_a_retuned_study_does_not_claim_one_learning_rate() -> None:
    result = study_of(
        arm(16), arm(32, (1.9, 1.91, 1.89)), name="lora_r", rate_may_move=True, is_retuned=True
    )
    assert "each at a learning rate that was searched for it, everything" in study_lead(result)
    assert study_sentence(result).endswith(", each at a learning rate that was searched for it")
