"""The second judge on the page: chosen, asked, shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_looks import BACKBONE, clip, features, stages

from app import judges_panel, legend, metrics_panel
from app.handlers import Handlers
from app.looks import Look
from app.progress import Progress
from app.state import Session
from explorer.colors import DISPUTED
from explorer.look import Finished, Judged, LookRequest, Stage
from explorer.references.agreement import Agreement
from explorer.report import Alignment, Report

pytestmark = pytest.mark.usefixtures("no_probes")

AGREED = {
    "judge": "colmap",
    "share": 0.125,
    "threshold": 0.1,
    "pixels": 1200,
    "point_error": 0.031,
    "depth_error": 0.021,
    "auc5": 0.5,
    "auc30": 0.9,
    "per_frame": [{"frame": 0, "share": 0.25}, {"frame": 4, "share": 0.0}],
    "provenance": {},
}
CONSISTENT = {
    "mean": 0.991,
    "low": False,
    "per_frame": [{"frame": 0, "consistency": 0.99}, {"frame": 4, "consistency": None}],
}


def report() -> Report:
    errors = np.full((2, 4, 4), 0.2)
    rows = [{"frame": float(frame), "point_error": 0.2, "depth_error": 0.1} for frame in (0, 4)]
    still = Alignment(1.0, np.eye(3), np.zeros(3))
    return Report(0.2, 0.1, 0.0, 0.5, still, 1.0, errors, errors, rows)


def agreement() -> Agreement:
    distance = np.zeros((2, 4, 4))
    distance[0, 0] = 1.0
    return Agreement(report(), distance, 0.1)


def look(**summary: Any) -> Look:
    found = Look("id", LookRequest("clip.mp4", BACKBONE, 0, 0.0, reference="exact"))
    found.features, found.report = features(), report()
    found.summary = {"point_error": 0.2, **summary}
    return found


def test_errors_without_disputed_pixels_and_of_the_judges_have_rows_of_their_own() -> None:
    rest = {"point_error": 0.111, "depth_error": 0.222, "per_frame": []}
    said = metrics_panel.show(look(agreement=AGREED, undisputed=rest))
    rows = {re.sub("<.*", "", row.partition("scope='row'>")[2]): row for row in said.split("<tr ")}
    assert "<td>0.111</td><td>0.222</td><td>–</td>" in rows["this look without disputed pixels"]
    assert "<td>0.031</td><td>0.021</td>" in rows["exact against colmap"]
    assert "colmap disputes 12.5 % of the 1,200 compared pixels" in said
    assert "Their cameras agree to an AUC@30 of 0.90" in said
    assert re.search(r"frame 0</th>.*?<b>0\.200</b></td><td>25\.0 %</td>", said)


def test_who_was_asked_in_turn_is_named_in_the_row_of_the_judges() -> None:
    asked = {"reference": {"id": "estimate", "judge": "toy-vggt"}}
    said = metrics_panel.show(look(agreement=AGREED, provenance=asked))
    assert "toy-vggt against colmap" in said


def test_one_frame_has_no_pair_of_cameras_to_agree_on() -> None:
    said = metrics_panel.show(look(agreement={**AGREED, "auc30": None}))
    assert "compared pixels" in said
    assert "AUC@30 of" not in said


def test_without_a_second_judge_nothing_is_said_of_one() -> None:
    said = metrics_panel.show(look(reference_consistency=CONSISTENT))
    assert "disput" not in said
    assert "against" not in said


def test_the_consistency_of_the_reference_stands_beside_the_errors_of_each_frame() -> None:
    said = metrics_panel.show(look(reference_consistency=CONSISTENT))
    assert "agrees with itself on 99.1 % of the pixels" in said
    assert re.search(r"frame 0</th>.*?<b>0\.200</b></td><td>99\.0 %</td>", said)
    assert re.search(r"frame 4</th>.*?<b>0\.200</b></td><td>–</td>", said)
    assert said.count("<th title=") == 6 + 1
    assert "class='warn'" not in said


def test_a_reference_that_contradicts_itself_is_warned_of_first() -> None:
    low = {**CONSISTENT, "mean": 0.874, "low": True}
    said = metrics_panel.show(look(reference_consistency=low))
    assert said.startswith("<div class='pane'><p class='warn'")
    assert "only <b>87.4 %</b>" in said
    assert "Something moves in this clip, or the reference is wrong" in said
    assert judges_panel.warning(look()) == ""


def test_why_a_judge_did_not_judge_is_said() -> None:
    found = look(agreement=None)
    found.judge_note = "no second judge: colmap: <too> little parallax"
    said = metrics_panel.show(found)
    assert "No second judge: colmap: &lt;too&gt; little parallax." in said


def test_the_judge_is_a_step_only_where_it_is_asked() -> None:
    assert "judge" not in Progress().html()
    steps = Progress(judged=True)
    assert ">judge<b>–</b></li>" in steps.html()
    for name in ("clip", "latents", "features", "prediction", "reference"):
        steps.done[name] = "0.10 s"
    assert "Asking the second judge" in steps.html()
    named = {"judge": "colmap", "provenance": {}, "note": None}
    steps.add(Judged(seconds=0.4, agreement=agreement(), **named))
    (line,) = re.findall("<li class='done' title='([^']+)'>judge<b>0.40 s</b></li>", steps.html())
    assert "the two disagree" in line
    steps.add(Judged(seconds=0.4, agreement=None, **named))
    assert "judge<b>no judgement</b>" in steps.html()


def test_the_legend_names_the_mask_only_where_there_is_one() -> None:
    assert "disputed" not in legend.html()
    said = legend.html(disputed=True)
    assert f"background: rgb{DISPUTED}'></i> disputed by the second judge" in said


def test_a_run_asks_the_judge_that_was_chosen_and_another_choice_makes_it_old(
    page: Handlers, session: Session, looks: Any
) -> None:
    asked = []

    def judged(request: LookRequest, **kwargs: Any) -> Iterator[Stage]:
        asked.append(request.judge)
        for stage in stages(clip()):
            if isinstance(stage, Finished):
                yield Judged(
                    seconds=0.25, judge="colmap", agreement=agreement(), provenance={}, note=None
                )
            yield stage

    looks(judged)
    updates = list(page.running.run(session, 0, 1, 5, BACKBONE, 0, 0.0, "exact", "colmap"))
    assert asked == ["colmap"]
    found = page.shared.looks.get(session.look_id)
    assert found is not None
    assert found.agreement is not None
    assert any(
        re.search("class='done'[^>]*>judge<", update.get("status", "")) for update in updates
    )
    controls = (0, 1, 5, BACKBONE, 0, 0.0, "exact")
    assert page.choosing.controls_moved(session, *controls, "colmap") == {"stale": ""}
    said = page.choosing.controls_moved(session, *controls, "none")["stale"]
    assert "<b>second judge none</b>: press Run" in said


def test_another_pages_run_has_no_judge_of_this_one(
    page: Handlers, session: Session, looks: Any, tmp_path: Path
) -> None:
    asked = []

    def seen(request: LookRequest, **kwargs: Any) -> Iterator[Stage]:
        asked.append(request.judge)
        yield from stages(clip())

    looks(seen)
    other = Session(session.source)
    mine = page.running.run(session, 0, 1, 5, BACKBONE, 0, 0.0, "exact", "colmap")
    while "viewer" not in next(mine):
        pass
    hers = page.running.run(other, 0, 1, 5, BACKBONE, 0, 0.0, "exact", "none")
    list(mine)
    list(hers)
    assert asked == ["colmap", "none"]
    assert session.shown is not None
    assert other.shown is not None
    assert (session.shown.judge, other.shown.judge) == ("colmap", "none")
