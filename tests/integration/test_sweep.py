"""A sweep from clips to a table, with a small backbone and real probes, store and references."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from explorer import references
from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.backbones.base import never
from explorer.cli import main
from explorer.errors import Cancelled, EmergeError, SweepError
from explorer.look import look
from explorer.metrics.interval import bootstrap_means, range_of
from explorer.store import Store
from explorer.sweep import Failed, Measured, SweepRequest, Swept, sweep
from explorer.sweep.file import SweepFile
from explorer.sweep.ray import spread
from explorer.sweep.table import maps, render_table
from explorer.sweep.units import Unit

SIGMAS = (0.3, 0.5)


@pytest.fixture
def pair(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two videos with the same exact geometry and different pictures."""
    from explorer.clip import load_clip
    from explorer.references import exact

    other = tmp_path / "other.mp4"
    import av

    with av.open(str(other), "w") as output:
        stream = output.add_stream("libx264", rate=24, options={"crf": "4", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *tiny.backbone.card.input_size, "yuv420p"
        for image in np.random.default_rng(0).integers(0, 255, (7, 64, 96, 3), dtype=np.uint8):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    known = load_clip(other, count=1).source_hash
    monkeypatch.setitem(exact._registered, known, tmp_path / "clip.safetensors")
    return str(tiny.request.path), str(other)


def ask(*sources: str, **changes: Any) -> SweepRequest:
    asked = SweepRequest(
        sources, ("tiny",), sigmas=SIGMAS, stride=1, count=5, target=Target(device="cpu")
    )
    return replace(asked, **changes)


def quick(*sources: str, **changes: Any) -> SweepRequest:
    """Cells without a probe, whose lines are made in no time."""
    return ask(*sources, **{"layers": "0", "proxies": False, **changes})


def run(tiny: Any, request: SweepRequest, out: Path, **options: Any) -> list[Any]:
    return list(sweep(request, out, store=tiny.store, **options))


def rows_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()[1:]]


def without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    unlike = ("seconds", "peak_memory_bytes", "cached")
    return [{name: row[name] for name in row if name not in unlike} for row in rows]


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


def test_a_killed_sweep_goes_on_where_its_file_ends(
    tiny: Any, pair: tuple[str, str], tmp_path: Path
) -> None:
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    run(tiny, ask(*pair), whole)
    calls = tiny.backbone.calls
    lines = whole.read_bytes().splitlines(keepends=True)
    assert len(lines) == 13
    # a header, one pass of three layers, one layer of the next pass, and a piece of a line
    torn.write_bytes(b"".join(lines[:5]) + lines[5][:700])
    found = run(tiny, ask(*pair), torn)
    assert tiny.backbone.calls == calls + 3
    measured = [each for each in found if isinstance(each, Measured)]
    assert [len(each.rows) for each in measured] == [2, 3, 3]
    assert (measured[0].done, measured[-1].of) == (2, 4)
    assert without_clock(rows_in(torn)) == without_clock(rows_in(whole))
    assert torn.read_bytes().startswith(b"".join(lines[:5]))
    run(tiny, ask(*pair), torn)
    assert tiny.backbone.calls == calls + 3, "nothing is left to do"


def test_an_interrupted_sweep_leaves_finished_passes_and_a_file_to_go_on_with(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, extract = tmp_path / "a.jsonl", tiny.backbone.extract

    def interrupted(*given: Any, **named: Any) -> Any:
        if tiny.backbone.calls == 2:
            raise KeyboardInterrupt
        return extract(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(tiny.backbone, "extract", interrupted)
        words = ["sweep", *pair, "--backbone", "tiny", "--sigmas", "0.3,0.5", "--count", "5"]
        words += ["--stride", "1", "--device", "cpu", "--out", str(out)]
        assert main(words) == 130
    assert len(rows_in(out)) == 6
    assert not (tmp_path / "a.summary.json").exists()
    assert main(words) == 0
    assert tiny.backbone.calls == 4
    assert len(rows_in(out)) == 12


def test_stop_ends_a_sweep_between_passes(tiny: Any, pair: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with pytest.raises(Cancelled):
        run(tiny, ask(*pair), out, should_stop=lambda: tiny.backbone.calls == 1)
    assert len(rows_in(out)) in (0, 3)
    run(tiny, ask(*pair), out)
    assert len(rows_in(out)) == 12


OTHER: list[tuple[dict[str, Any], str]] = [
    ({"sigmas": (0.3,)}, "begun with sigmas 0.3, 0.5, not 0.3"),
    ({"layers": "1"}, "begun with layers 0, not 1"),
    ({"seeds": (1,)}, "seeds"),
    ({"count": 1}, "count"),
    ({"reference": "none"}, "reference"),
    ({"proxies": True}, "proxies"),
    ({"target": Target(device="cpu", dtype="bfloat16")}, "dtype"),
]


def test_a_file_of_other_options_is_refused_and_stays_as_it_is(
    tiny: Any, pair: tuple[str, str], tmp_path: Path
) -> None:
    out, request = tmp_path / "a.jsonl", ask(pair[0], layers="0", proxies=False)
    run(tiny, request, out)
    before, calls = out.read_bytes(), tiny.backbone.calls
    for change, message in OTHER:
        with pytest.raises(SweepError, match=message):
            run(tiny, replace(request, **change), out)
        assert (out.read_bytes(), tiny.backbone.calls) == (before, calls)


def test_a_file_that_is_none_of_a_sweep_is_refused_and_stays_as_it_is(
    tiny: Any, pair: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "notes.txt"
    for text in ("a line without an end", "some\nlines\n", '{"format": "other"}\n'):
        out.write_text(text)
        with pytest.raises(SweepError, match="not the file of a sweep"):
            run(tiny, quick(pair[0]), out)
        assert out.read_text() == text


def test_a_damaged_line_in_the_middle_is_named(
    tiny: Any, pair: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "a.jsonl"
    run(tiny, quick(pair[0]), out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join([*lines[:2], "{oops\n"]))
    with pytest.raises(SweepError, match="line 3 of .* remove this line"):
        run(tiny, quick(pair[0]), out)
    out.write_text("".join(lines[:2]))
    run(tiny, quick(pair[0]), out)
    assert len(rows_in(out)) == 2


def test_lines_from_before_a_video_weights_or_a_probe_changed_are_not_mixed_with_new_ones(
    tiny: Any, pair: tuple[str, str], tmp_path: Path
) -> None:
    out, request = tmp_path / "a.jsonl", ask(pair[0], layers="1", proxies=False)
    run(tiny, request, out)
    header, first, second = out.read_text().splitlines(keepends=True)
    probe = json.loads(second)["probe"]
    for earlier, message in (
        (first.replace('"tiny-1"', '"tiny-0"'), "before the weights of tiny changed"),
        (second.replace(probe, "f" * 64), "before the probe of tiny:1:0.5 changed"),
    ):
        # a line of another clip, which is made of the same but for one thing
        other = earlier.replace(json.dumps(pair[0]), json.dumps("elsewhere.mp4"))
        out.write_text(header + other)
        with pytest.raises(SweepError, match=message):
            run(tiny, request, out)
        assert out.read_text().splitlines(keepends=True)[1] == other
    shutil.copy(pair[1], pair[0])
    out.write_text(header + first)
    with pytest.raises(SweepError, match="before the video .* changed"):
        run(tiny, request, out)


def test_lines_that_do_not_fit_on_the_disk_leave_the_file_as_it_was(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.jsonl"
    begun = sweep(quick(pair[0]), out, store=tiny.store)
    next(begun)
    before = out.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("explorer.sweep.file.os.fsync", full)
        with pytest.raises(SweepError, match="No space left"):
            next(begun)
    assert out.read_bytes() == before
    run(tiny, quick(pair[0]), out)
    assert len(rows_in(out)) == 2


def test_one_process_alone_writes_a_file(tiny: Any, pair: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    first = sweep(quick(pair[0]), out, store=tiny.store)
    next(first)
    with pytest.raises(SweepError, match="another process"):
        run(tiny, quick(pair[0]), out)
    first.close()
    run(tiny, quick(pair[0]), out)


def test_two_processes_that_begin_a_file_at_once_do_not_replace_each_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, opened = tmp_path / "a.jsonl", []
    ours = Path.open

    def overtaken(path: Path, *args: Any, **options: Any) -> Any:
        if not opened:  # another process does all it has to between two of our steps
            opened.append(None)
            opened[0] = SweepFile(out, {"seeds": [0]}, {})
        return ours(path, *args, **options)

    monkeypatch.setattr(Path, "open", overtaken)
    with pytest.raises(SweepError, match="another process"):
        SweepFile(out, {"seeds": [0]}, {})
    assert out.stat().st_ino == os.fstat(opened[0]._file.fileno()).st_ino
    opened[0].close()


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


class FakeRay:
    """Workers of one process: a task runs when its result is fetched, the last one first."""

    class exceptions:  # noqa: N801 (ray's own name)
        class RayError(Exception):
            pass

    def __init__(self, dies: str = "") -> None:
        self.dies = dies
        self.cancelled: list[Any] = []
        self.options: dict[str, Any] = {}

    def init(self, address: str, **options: Any) -> None:
        if address == "nowhere":
            raise ConnectionError("nobody answers")

    def remote(self, **options: Any) -> Any:
        self.options = options
        # a task is what it does, and the clip that it is about
        return lambda work: SimpleNamespace(
            remote=lambda request, unit, root: (partial(work, request, unit, root), unit.clip)
        )

    def wait(self, tasks: list[Any], *, num_returns: int, timeout: float) -> Any:
        return tasks[-1:], tasks[:-1]

    def get(self, task: Any) -> Any:
        work, clip = task
        if self.dies and clip.endswith(self.dies):
            raise self.exceptions.RayError("out of memory")
        return work()

    def cancel(self, task: Any, *, force: bool) -> None:
        self.cancelled.append(task[1])


def test_workers_of_a_cluster_write_the_same_lines(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    alone, shared = tmp_path / "alone.jsonl", tmp_path / "shared.jsonl"
    run(tiny, ask(*pair), alone)
    found = run(tiny, ask(*pair), shared, ray="auto")
    assert found[0].rows[0]["clip"] == pair[1], "the last one first"
    by_clip = sorted(without_clock(rows_in(shared)), key=lambda row: pair.index(row["clip"]))
    assert by_clip == without_clock(rows_in(alone))
    assert alone.read_bytes().splitlines()[0] == shared.read_bytes().splitlines()[0]
    assert found[-1].summary["cells"] == run(tiny, ask(*pair), alone)[-1].summary["cells"]
    assert fake.options["num_gpus"] == 0


def test_a_worker_takes_the_gpu_that_the_cluster_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, asked = FakeRay(), []
    monkeypatch.setattr(registry, "resolve_device", lambda device: device)
    monkeypatch.setattr(fake, "get", lambda task: asked.append(task[0].args[0].target) or [])
    request = ask("a.mp4", target=Target(device="cuda:1"))
    units = [Unit("a.mp4", "tiny", {})]
    assert not list(spread(fake, request, units, store=Store(tmp_path), should_stop=never))
    assert [target.device for target in asked] == ["cuda"]
    assert fake.options["num_gpus"] == 1


def test_a_worker_that_dies_is_the_failure_of_its_clip(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.jsonl"
    monkeypatch.setitem(sys.modules, "ray", FakeRay(dies="clip.mp4"))
    found = run(tiny, quick(*pair), out, ray="auto")
    assert found[-2] == Failed(pair[0], "tiny", "RayError: out of memory")
    assert len(rows_in(out)) == 2
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    run(tiny, quick(*pair), out, ray="auto")
    assert len(rows_in(out)) == 4


def test_a_stopped_sweep_gives_up_the_work_of_a_cluster(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(Cancelled):
        run(tiny, quick(*pair), tmp_path / "a.jsonl", ray="auto", should_stop=lambda: True)
    assert fake.cancelled == list(pair)
    stopped = sweep(quick(*pair), tmp_path / "a.jsonl", store=tiny.store, ray="auto")
    next(stopped)
    stopped.close()
    assert fake.cancelled == [*pair, pair[0]]


def test_without_ray_or_a_cluster_nothing_is_begun(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SweepError, match="pip install ray"):
        run(tiny, quick(*pair), tmp_path / "a.jsonl", ray="auto")
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    with pytest.raises(SweepError, match="no Ray cluster at 'nowhere': nobody answers"):
        run(tiny, quick(*pair), tmp_path / "a.jsonl", ray="nowhere")
    assert not (tmp_path / "a.jsonl").exists()
