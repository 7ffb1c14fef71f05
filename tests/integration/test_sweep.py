"""A sweep from clips to a table, with a small backbone and real probes, store and references."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeping import SIGMAS, ask, quick, rows_in, run

from explorer import references
from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.cli import main
from explorer.errors import EmergeError
from explorer.look import look
from explorer.metrics.interval import bootstrap_means, range_of
from explorer.store import Store
from explorer.sweep import Failed, Measured, Swept
from explorer.sweep.table import maps, render_table


def test_a_pass_serves_all_layers_and_latents_and_reference_are_made_once_a_clip(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    known = references._references["exact"]

    def count(clip: Any, context: Any) -> Any:
        asked.append(clip.name)
        return known.reference(clip, context)

    monkeypatch.setitem(references._references, "exact", replace(known, reference=count))
    out = tmp_path / "a.jsonl"
    found = run(tiny, ask(*pair, seeds=(0, 1)), out)
    assert tiny.backbone.calls == 2 * 2 * 2  # clips, sigmas, seeds
    assert tiny.backbone.encoder_calls == 2
    assert asked == ["clip.mp4", "other.mp4"]
    assert [each.done for each in found if isinstance(each, Measured)] == list(range(1, 9))
    keys = [(r["clip"], r["sigma"], r["seed"], r["layer"]) for r in rows_in(out)]
    assert keys == [(c, s, n, k) for c in pair for s in SIGMAS for n in (0, 1) for k in range(3)]
    kinds = sorted(path.name for path in tiny.store.root.iterdir())
    assert kinds == ["latents"], "features of many cells would push everything else out"


def test_a_cell_of_a_sweep_says_what_a_look_at_it_says(
    tiny: Any, pair: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "a.jsonl"
    run(tiny, ask(pair[0]), out)
    for row in rows_in(out):
        alone = tiny.ask(layer=row["layer"], sigma=row["sigma"], stride=1)
        *_, last = look(alone, store=Store(tmp_path / "fresh"))
        for name in ("point_error", "depth_error", "auc5", "auc30", "correspondence_error_px"):
            assert row[name] == last.summary[name], name
        assert row["pck"] == last.summary["pck"]
        assert (row["point_error"] is None) == ((row["layer"], row["sigma"]) not in PROBES)
        assert row["feature_norm"] > 0
        assert row["proxies"]["cycle_mutual_share"] > 0
        assert row["seconds"]["total"] > 0


PROBES = ((1, 0.3), (1, 0.5), (2, 0.3))


def test_what_is_kept_is_found_by_a_look(tiny: Any, pair: tuple[str, str], tmp_path: Path) -> None:
    run(tiny, ask(pair[0], keep=True), tmp_path / "a.jsonl")
    calls = tiny.backbone.calls
    *_, last = look(tiny.ask(stride=1), store=tiny.store)
    assert last.summary["cached"] == {"latents": None, "features": True, "prediction": True}
    assert tiny.backbone.calls == calls


def test_intervals_over_clips_are_those_of_the_lines(
    tiny: Any, pair: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "a.jsonl"
    summary = run(tiny, ask(*pair, seeds=(0, 1)), out)[-1].summary
    assert summary["clips"] == {"count": 2, "names": list(pair), "whole": 2}
    assert (summary["lines"], summary["missing"]) == (24, 0)
    cells = {cell["id"]: cell for cell in summary["cells"]}
    assert len(cells) == 6
    for name in ("correspondence_error_px", "point_error", "cycle_mutual_share"):
        values = np.zeros((2, 2))
        for row in rows_in(out):
            if (row["layer"], row["sigma"]) == (1, 0.5):
                seen = row["proxies"] if name.startswith("cycle") else row
                values[row["seed"], pair.index(row["clip"])] = seen[name]
        found = cells["tiny:1:0.5"]["metrics"][name]
        assert found["mean"] == pytest.approx(values.mean())
        assert (found["low"], found["high"]) == range_of(bootstrap_means([values])[0])
        assert found["count"] == 2
    assert cells["tiny:0:0.3"]["metrics"]["point_error"] is None
    assert cells["tiny:0:0.3"]["probe"] is None
    assert "3 of 6 cells have a probe, layer:sigma 1:0.3, 2:0.3, 1:0.5" in summary["notes"][0]


def test_a_video_under_two_names_is_said_to_count_twice(
    tiny: Any, pair: tuple[str, str], tmp_path: Path
) -> None:
    copy = str(tmp_path / "copy.mp4")
    shutil.copy(pair[0], copy)
    notes = run(tiny, quick(*pair, copy), tmp_path / "a.jsonl")[-1].summary["notes"]
    assert f"the same video counts 2 times: {pair[0]}, {copy}" in notes
    notes = run(tiny, quick(*pair), tmp_path / "b.jsonl")[-1].summary["notes"]
    assert not any("the same video" in note for note in notes)


def test_a_clip_that_fails_is_listed_and_does_not_stop_the_others(
    tiny: Any,
    pair: tuple[str, str],
    tmp_path: Path,
    make_video: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken, out = tmp_path / "broken.mp4", tmp_path / "out" / "a.jsonl"
    broken.write_bytes(b"no video")
    short = make_video("short.mp4", count=3, size=(64, 96))
    words = ["sweep", str(broken), str(tmp_path / "gone.mp4"), str(short), pair[0]]
    words += ["--backbone", "tiny", "--sigmas", "0.3", "--count", "5", "--stride", "1"]
    words += ["--device", "cpu", "--out", str(out), "--json"]
    assert main(words) == 1
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert printed.out.count("\n") == 1
    reasons = {Path(each["clip"]).name: each["reason"] for each in summary["failed"]}
    assert set(reasons) == {"broken.mp4", "gone.mp4", "short.mp4"}
    assert "does not exist" in reasons["gone.mp4"]
    assert "too few" in reasons["short.mp4"]
    assert printed.err.count("failed: ") == 3
    assert summary["clips"] == {"count": 4, "names": words[1:5], "whole": 1}
    assert {row["clip"] for row in rows_in(out)} == {pair[0]}
    assert json.loads((tmp_path / "out" / "a.summary.json").read_text()) == summary


def test_an_unforeseen_error_is_the_failure_of_one_clip(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = tiny.backbone.encode

    def broken(clip: Any, **named: Any) -> Any:
        if clip.name == "clip.mp4":
            raise RuntimeError("out of memory")
        return encode(clip, **named)

    monkeypatch.setattr(tiny.backbone, "encode", broken)
    found = run(tiny, quick(*pair), tmp_path / "a.jsonl")
    assert found[0] == Failed(pair[0], "tiny", "RuntimeError: out of memory")
    assert {row["clip"] for row in rows_in(tmp_path / "a.jsonl")} == {pair[1]}
    assert isinstance(found[-1], Swept)


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"backbones": ("nothing",)}, "tiny"),
    ({"layers": "0-5"}, "layers 0 to 2"),
    ({"layers": "2-1"}, "ranges like 0-29"),
    ({"sigmas": (1.5,)}, "sigma 1.5"),
    ({"sigmas": ()}, "needs sigmas"),
    ({"sources": ()}, "needs sources"),
    ({"clips": 0}, "1 or more"),
    ({"reference": "guess"}, "exact"),
    ({"target": Target(device="banana")}, "banana"),
]


def test_a_request_that_makes_no_sense_is_one_error_before_any_work(
    tiny: Any, pair: tuple[str, str], tmp_path: Path
) -> None:
    for change, message in SENSELESS:
        with pytest.raises(EmergeError, match=message):
            run(tiny, ask(*pair, **change), tmp_path / "a.jsonl")
    assert tiny.backbone.calls == 0
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["--out", "."], "name a file in it"),
        (["--out", "a.jsonl", "--map", "a.jsonl"], "name another file"),
        (["--out", "a.jsonl", "--map", "a.summary.json"], "name another file"),
    ],
)
def test_results_have_a_file_of_their_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    places: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "clip.mp4", *places]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_backbone_without_noise_has_one_column_and_one_seed(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = replace(tiny.backbone.card, uses_sigma=False)
    entry = replace(registry._entries["tiny"], card=card)
    monkeypatch.setitem(registry._entries, "tiny", entry)
    summary = run(tiny, quick(pair[0], seeds=(3, 4)), tmp_path / "a.jsonl")[-1].summary
    assert tiny.backbone.calls == 1
    assert {(row["sigma"], row["seed"]) for row in rows_in(tmp_path / "a.jsonl")} == {(0.0, 3)}
    assert any("sees no noise" in note for note in summary["notes"])


def test_a_video_that_nobody_knows_has_the_figures_that_need_no_geometry(
    tiny: Any, tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = make_video("upload.mp4", count=6, size=(80, 80))
    monkeypatch.delattr("explorer.probe.predict.predict_frames")  # there is nothing to compare
    summary = run(tiny, ask(str(upload)), tmp_path / "a.jsonl")[-1].summary
    for cell in summary["cells"]:
        assert cell["metrics"]["point_error"] is None
        assert cell["metrics"]["correspondence_error_px"] is None
        assert cell["metrics"]["cycle_mutual_share"]["count"] == 1
        assert cell["metrics"]["cycle_mutual_share"]["low"] is None
    assert "of tiny, 3 of 6 cells have a probe" in summary["notes"][0]
    assert any("no reference" in note and "upload.mp4" in note for note in summary["notes"])
    text = render_table(summary)
    assert "tiny: mutual matches" in text
    assert "point error" not in text


def test_a_probe_that_cannot_be_read_is_said_of_the_clips_that_would_need_it(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    card = tiny.assets / "probes" / "tiny" / "L01_S0.30.json"
    card.write_text(card.read_text().replace("tiny-1", "tiny-2"))
    upload = make_video("upload.mp4", count=6, size=(80, 80))
    out = tmp_path / "a.jsonl"
    summary = run(tiny, ask(pair[0], str(upload), layers="1", proxies=False), out)[-1].summary
    assert summary["failed"] == []
    known, unknown = (row for row in rows_in(out) if row["sigma"] == 0.3)
    assert known["point_error"] is None
    assert "trained on other weights" in known["probe_note"]
    assert unknown["probe_note"] is None
    assert unknown["probe"] == known["probe"]
    assert any("other weights" in note and pair[0] in note for note in summary["notes"])


def test_proxies_can_be_left_out(tiny: Any, pair: tuple[str, str], tmp_path: Path) -> None:
    run(tiny, ask(pair[0]), tmp_path / "a.jsonl")
    run(tiny, ask(pair[0], proxies=False), tmp_path / "b.jsonl")
    rows = zip(rows_in(tmp_path / "a.jsonl"), rows_in(tmp_path / "b.jsonl"), strict=True)
    for row, plain in rows:
        assert plain["proxies"] is None
        for name in ("correspondence_error_px", "pck", "nothing_moves_px"):
            assert row[name] == plain[name] is not None


def test_a_dataset_is_swept_scene_by_scene(
    tiny: Any, tmp_path: Path, pair: tuple[str, str]
) -> None:
    (tmp_path / "videos").mkdir()
    for number, path in enumerate(pair):
        shutil.copy(path, tmp_path / "videos" / f"v{number}.mp4")
    folder = str(tmp_path / "videos")
    summary = run(tiny, quick(folder), tmp_path / "a.jsonl")[-1].summary
    assert summary["clips"]["names"] == [f"{folder}::v0", f"{folder}::v1"]
    assert summary["clips"]["whole"] == 2
    summary = run(tiny, quick(folder, clips=1), tmp_path / "b.jsonl")[-1].summary
    assert summary["clips"]["names"] == [f"{folder}::v0"]
    (failed,) = run(tiny, quick(folder, side="test"), tmp_path / "c.jsonl")[:-1]
    assert "no scene on the side 'test'" in failed.reason


def test_the_table_and_the_maps_show_the_means(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "a.jsonl", tmp_path / "map.html"
    words = ["sweep", *pair, "--backbone", "tiny", "--sigmas", "0.3,0.5", "--count", "5"]
    words += ["--stride", "1", "--device", "cpu", "--out", str(out), "--map", str(page)]
    assert main(words) == 0
    text = capsys.readouterr().out
    summary = json.loads((tmp_path / "a.summary.json").read_text())
    cells = {cell["id"]: cell["metrics"]["point_error"] for cell in summary["cells"]}
    _, _, grid = text.partition("tiny: point error\n")
    head, first, second = grid.splitlines()[:3]
    assert head.split() == ["layer", "sigma", "0.3", "sigma", "0.5"]
    assert first.split()[1] == f"{cells['tiny:1:0.3']['mean']:.3f}"
    assert first.split()[4] == f"{cells['tiny:1:0.5']['mean']:.3f}"
    assert second.split()[0] == "2"
    assert second.split()[-1] == "-"
    html = page.read_text()
    assert "<script src=" not in html
    assert html.count("tiny: ") == text.count("tiny: ") - 1  # passes have a line, and no map
    assert f"{cells['tiny:1:0.3']['mean']:.3f}" in html
    with pytest.raises(ValueError, match="nothing"):
        maps({**summary, "cells": []})


def test_maps_of_one_figure_share_their_colours(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "explorer.sweep.table.to_html", lambda *figures, title: drawn.extend(figures) or title
    )
    request = ask(pair[0], backbones=("tiny", "rgb"), layers="0")
    assert "1 clip" in maps(run(tiny, request, tmp_path / "a.jsonl")[-1].summary)
    spans = [
        (figure["data"][0]["zmin"], figure["data"][0]["zmax"], figure["data"][0]["reversescale"])
        for figure in drawn
        if "correspondence error" in figure["layout"]["title"]["text"]
    ]
    assert len(spans) == 2
    assert spans[0] == spans[1]
    assert spans[0][2] is True
