"""The file of a sweep: killed, stopped, resumed, refused, shared."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweeping import ask, quick, rows_in, run, without_clock

from explorer.backbones._options import Target
from explorer.cli import main
from explorer.errors import Cancelled, SweepError
from explorer.sweep import Measured, sweep
from explorer.sweep.file import SweepFile


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
