"""A second judge in whole looks: what it disputes, and what a look does without it."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
import pytest
from offering import no_parallax, offer

from explorer import references
from explorer.backbones import loaded, registry
from explorer.backbones.base import Hashes, stop_check
from explorer.cli import main
from explorer.clip import load_clip
from explorer.errors import Cancelled
from explorer.look import Compared, Judged, Predicted, Referenced, look
from explorer.metrics.points import point_error
from explorer.reconstruction import Reconstruction
from explorer.references import Context


def shifted(found: Reconstruction, pixels: np.ndarray, source: str = "other") -> Reconstruction:
    """Another judge: the same geometry, but three times as far away in some pixels (S, H, W)."""
    depth = np.where(pixels, 3 * found.depth, found.depth)
    points = np.where(pixels[..., None], 3 * found.points, found.points)
    return Reconstruction(**{**vars(found), "depth": depth, "points": points, "source": source})


@pytest.fixture
def judged(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`tiny`, with a judge "other" that sees the lower right corner of frame 1 further away."""
    exact = references.reconstruct("exact", load_clip(tiny.request.path, count=5, size=(64, 96)))
    assert exact is not None
    pixels = np.zeros(exact.depth.shape, dtype=bool)
    pixels[1, 48:, 72:] = True
    offer(monkeypatch, "other", lambda clip, context: shifted(exact, pixels))
    return tiny


def test_a_second_judge_marks_disputed_pixels_and_metrics_are_given_without_them_too(
    judged: Any,
) -> None:
    stages = list(look(judged.ask(judge="other"), store=judged.store))
    kinds = [type(stage) for stage in stages]
    assert kinds.index(Judged) == kinds.index(Referenced) + 1
    (agreed,) = (stage.agreement for stage in stages if isinstance(stage, Judged))
    (compared,) = (stage for stage in stages if isinstance(stage, Compared))
    (predicted,) = (stage.reconstruction for stage in stages if isinstance(stage, Predicted))
    (reference,) = (stage.reconstruction for stage in stages if isinstance(stage, Referenced))
    assert agreed is not None
    expected = np.zeros((2, 16, 24), dtype=bool)
    expected[1, 12:, 18:] = True
    np.testing.assert_array_equal(agreed.disagree, expected)
    assert compared.undisputed is not None
    left = reference.valid & ~expected
    np.testing.assert_array_equal(np.isfinite(compared.undisputed.point_error_map), left)
    np.testing.assert_array_equal(np.isfinite(compared.report.point_error_map), reference.valid)
    by_hand = point_error(predicted.points, reference.points, left.astype(np.float64)).error
    summary = stages[-1].summary
    assert summary["undisputed"]["point_error"] == pytest.approx(by_hand)
    assert summary["undisputed"]["point_error"] != summary["point_error"]
    assert summary["agreement"]["judge"] == "other"
    assert summary["agreement"]["share"] == pytest.approx(expected.sum() / reference.valid.sum())
    assert summary["agreement"]["per_frame"] == [
        {"frame": 0, "share": 0.0},
        {"frame": 1, "share": pytest.approx(expected[1].sum() / reference.valid[1].sum())},
    ]
    assert summary["agreement"]["point_error"] > 0
    assert summary["seconds"]["judge"] >= 0


def test_a_look_without_a_second_judge_is_what_it_was(judged: Any) -> None:
    with_one, without = (
        list(look(judged.ask(judge=name), store=judged.store))[-1].summary
        for name in ("other", "none")
    )
    assert without["agreement"] is None
    assert without["undisputed"] is None
    assert "judge" not in without["seconds"]
    for name in ("point_error", "depth_error", "auc30", "per_frame", "correspondence"):
        assert with_one[name] == without[name], name


def test_what_judges_say_of_each_other_comes_from_the_store_and_needs_no_torch(
    judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(look(judged.ask(judge="other"), store=judged.store))[-1].summary
    monkeypatch.setitem(registry._entries, "tiny", known_hashes())
    monkeypatch.setattr(loaded, "models", {})
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails from here on
    again = list(look(judged.ask(judge="other"), store=judged.store))[-1].summary
    assert again["agreement"] == first["agreement"]
    assert again["undisputed"] == first["undisputed"]


def known_hashes() -> Any:
    known = Hashes("tiny-1", "tiny-encoder-1")
    return replace(registry._entries["tiny"], hashes=lambda target: known)


def test_a_frame_that_the_judge_does_not_know_has_no_share_and_who_was_asked_is_named(
    judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = references.reconstruct("exact", load_clip(judged.request.path, count=5, size=(64, 96)))
    assert exact is not None
    confidence = exact.confidence.copy()
    confidence[1] = 0
    answer = replace(exact, confidence=confidence, source="colmap", provenance={"judge": "colmap"})
    offer(monkeypatch, "whoever", lambda clip, context: answer)
    found = list(look(judged.ask(judge="whoever"), store=judged.store))[-1].summary["agreement"]
    assert found["judge"] == "colmap"
    assert found["per_frame"] == [{"frame": 0, "share": 0.0}, {"frame": 1, "share": None}]


def test_without_a_probe_judges_are_compared_all_the_same(judged: Any) -> None:
    summary = list(look(judged.ask(judge="other", layer=0), store=judged.store))[-1].summary
    assert summary["agreement"]["share"] > 0
    assert summary["undisputed"] is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"judge": "strict"}, "no second judge: strict: too little parallax"),
        ({"judge": "exact"}, "no second judge: exact: here it is exact, as is the reference"),
        ({"judge": "blind"}, "no second judge: blind: 'blind' knows nothing about this video"),
        ({"judge": "later"}, "no second judge: later: other has no frames"),
        ({"judge": "other", "reference": "none"}, "no second judge: other: there is no reference"),
    ],
)
def test_a_judge_that_cannot_judge_says_why_and_the_look_goes_on(
    asked: dict[str, str], said: str, judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = references.reconstruct("exact", load_clip(judged.request.path, count=5, size=(64, 96)))
    assert exact is not None
    late = {**vars(exact), "frames": exact.frames + 10, "source": "other"}
    offer(monkeypatch, "strict", no_parallax)
    offer(monkeypatch, "blind", lambda clip, context: None)
    offer(monkeypatch, "later", lambda clip, context: Reconstruction(**late))
    stages = list(look(judged.ask(**asked), store=judged.store))
    assert any(isinstance(stage, Judged) and stage.agreement is None for stage in stages)
    summary = stages[-1].summary
    assert any(note.startswith(said) for note in summary["notes"]), summary["notes"]
    assert summary["agreement"] is summary["undisputed"] is None
    if "reference" not in asked:
        assert summary["point_error"] is not None


def test_where_everything_is_disputed_nothing_is_left_to_measure(
    judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = references.reconstruct("exact", load_clip(judged.request.path, count=5, size=(64, 96)))
    assert exact is not None
    noise = np.random.default_rng(0).normal(size=exact.points.shape) * 50
    wild = Reconstruction(**{**vars(exact), "points": noise, "source": "wild"})
    offer(monkeypatch, "wild", lambda clip, context: wild)
    summary = list(look(judged.ask(judge="wild"), store=judged.store))[-1].summary
    assert summary["agreement"]["share"] > 0.9
    assert summary["point_error"] is not None


def test_stop_ends_a_look_while_the_judge_is_at_work_and_stores_nothing_of_it(
    judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Event()

    def patient(clip: Any, context: Context) -> Reconstruction:
        def make() -> Reconstruction:
            stop.set()
            stop_check(context.should_stop)
            raise AssertionError("the judge went on")

        return context.cached(clip, {"name": "patient"}, make)

    offer(monkeypatch, "patient", patient)
    seen: list[Any] = []
    with pytest.raises(Cancelled):
        seen.extend(look(judged.ask(judge="patient"), store=judged.store, should_stop=stop.is_set))
    stored = sorted(path.name for path in judged.store.root.iterdir())
    stop.clear()
    assert "no-reconstruction" not in stored
    whole = list(look(judged.ask(judge="other"), store=judged.store))
    assert whole[-1].summary["agreement"] is not None


def test_a_judge_that_is_not_here_is_a_mistake_before_any_work(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["look", str(tiny.request.path), "--backbone", "tiny", "--device", "cpu"]
    for name in ("nobody", "auto"):
        assert main([*words, "--judge", name]) == 2
        assert f"there is no reference '{name}'" in capsys.readouterr().err
    assert tiny.backbone.calls == 0


def test_the_command_line_says_what_is_disputed(
    judged: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["look", str(judged.request.path), "--backbone", "tiny", "--count", "5"]
    assert main([*words, "--stride", "1", "--device", "cpu", "--judge", "other"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.strip().splitlines())
    assert re.fullmatch(
        r"3\.3% of 720 that other knows too, off by more than 0\.\d\d",
        lines["disputed pixels"].strip(),
    )
    assert float(lines["undisputed point error"]) != float(lines["point error"])


def test_the_command_line_says_how_far_the_reference_agrees_with_itself(
    judged: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["look", str(judged.request.path), "--backbone", "tiny", "--count", "5"]
    words += ["--stride", "1", "--device", "cpu"]
    row = re.compile(r"^reference with itself +(\S+) of the pixels .* agree(.*)$", re.MULTILINE)
    exact = references.reconstruct("exact", load_clip(judged.request.path, count=5, size=(64, 96)))
    assert exact is not None
    depth = exact.depth * np.array([1, 2, 1, 2, 1])[:, None, None]
    offer(monkeypatch, "moving", lambda clip, context: replace(exact, depth=depth))
    for name, warned in (("exact", False), ("moving", True)):
        assert main([*words, "--reference", name]) == 0
        said = row.search(capsys.readouterr().out)
        assert said is not None
        assert ("something moves" in said[2]) is warned
    assert main([*words, "--reference", "none"]) == 0
    assert "reference with itself" not in capsys.readouterr().out
