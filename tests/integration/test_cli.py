"""The command line: what it prints where, and what it needs for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.backbones.base import Hashes
from explorer.cli import main
from explorer.errors import BackboneError

HELP = """
import sys
from explorer.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    assert not done.code, done.code
heavy = {"torch", "diffusers", "numpy", "gradio", "rerun", "cv2", "plotly"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "command",
    [
        *([], ["look"], ["sweep"], ["prepare"], ["train"], ["eval"], ["app"], ["view"]),
        *(["backbones"], ["references"], ["doctor"]),
    ],
)
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, *command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: emerge3d" in done.stdout


def test_help_costs_little_beside_the_parser_itself() -> None:
    # Processor time, best of five, against what the parser takes alone: machines differ, and the
    # one that runs this may be busy. Half a second where the parser alone takes 0.15.
    def spent(*words: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        after = os.times()
        return (after.children_user + after.children_system) - (
            before.children_user + before.children_system
        )

    parser = min(spent("-c", "import tyro") for _ in range(5))
    assert min(spent("-m", "explorer.cli", "--help") for _ in range(5)) < 3.5 * parser


def test_look_prints_one_json_object_on_stdout_and_its_progress_on_stderr(
    tiny: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run.rrd"
    words = ["look", str(tiny.request.path), "--backbone", "tiny", "--layer", "1"]
    words += ["--sigma", "0.3", "--count", "5", "--device", "cpu", "--out", str(out), "--json"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    found = json.loads(printed.out)
    assert found["point_error"] > 0
    assert found["provenance"]["backbone"]["id"] == "tiny"
    for said in ("clip decoded", "features", "geometry of frame 0", "compared"):
        assert f" s  {said}" in printed.err
    assert out.stat().st_size > 1000


def test_look_without_a_cell_takes_the_backbones_own(
    tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["look", str(tiny.request.path), "--backbone", "tiny", "--count", "5"]
    assert main([*words, "--device", "cpu", "--json"]) == 0
    source = json.loads(capsys.readouterr().out)["provenance"]
    assert (source["layer"], source["sigma"]) == (1, 0.3)


@pytest.mark.parametrize(
    ("options", "window", "said"),
    [
        ([], {"start": 0, "stride": 3, "count": 9}, "9 frames, 0 to 24, stride 3 (suggested)"),
        (
            ["--count", "5"],
            {"start": 0, "stride": 6, "count": 5},
            "5 frames, 0 to 24, stride 6 (suggested)",
        ),
        (
            ["--start", "2", "--stride", "1", "--count", "5"],
            {"start": 2, "stride": 1, "count": 5},
            "5 frames, 2 to 6, stride 1",
        ),
    ],
)
def test_look_takes_the_window_that_the_page_suggests_and_says_so(
    tiny: Any,
    capsys: pytest.CaptureFixture[str],
    make_video: Callable[..., Path],
    options: list[str],
    window: dict[str, int],
    said: str,
) -> None:
    from app.state import Source
    from app.window import suggested
    from explorer.clip import inspect_video

    path = make_video("long.mp4", count=30, fps=24)
    words = ["look", str(path), "--backbone", "tiny", "--device", "cpu", *options]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["provenance"]["clip"]["window"]
    assert found == window
    assert main(words) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.strip().splitlines())
    assert lines["window"].strip() == said
    if not options:
        source = Source(path, path.name, inspect_video(path), shipped=False)
        assert vars(suggested(source, tiny.backbone.card)) == found


def test_look_prints_a_table_for_people(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["look", str(tiny.request.path), "--backbone", "tiny", "--count", "5"]
    assert main([*words, "--device", "cpu"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.strip().splitlines())
    assert lines["backbone"].strip() == "tiny, untrained weights"
    assert float(lines["point error"]) > 0
    assert float(lines["correspondence error (px)"]) > 0
    assert float(lines["nothing moves (px)"]) > 0


@pytest.mark.parametrize(
    "words",
    [
        ["look", "missing.mp4", "--backbone", "tiny"],
        ["look", "missing.mp4", "--backbone", "no-such-thing"],
        ["backbones", "no-such-thing"],
        ["references", "no-such-thing"],
        ["references", "--download"],
        ["references", "exact", "--download"],
        ["view", "missing.rrd"],
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_status_two(
    tiny: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("emerge3d: ")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("backbone", ["tiny", "rgb"])
def test_a_device_that_is_not_there_is_a_mistake_whatever_the_backbone(
    tiny: Any, backbone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["look", str(tiny.request.path), "--backbone", backbone, "--device", "banana"]
    assert main(words) == 2
    assert "'banana' cannot be used" in capsys.readouterr().err
    assert main(["eval", "--clips", "1", "--cells", "tiny:1:0.3", "--device", "banana"]) == 2
    assert tiny.backbone.calls == 0


def test_an_unknown_dtype_is_refused_by_the_options(
    tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["look", str(tiny.request.path), "--backbone", "rgb", "--dtype", "banana"])
    assert end.value.code == 2
    assert "bfloat16" in capsys.readouterr().err


def test_a_failed_look_leaves_no_recording_behind(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    words = ["look", str(tiny.request.path), "--backbone", "tiny", "--count", "4"]
    assert main([*words, "--device", "cpu", "--out", str(folder / "run.rrd")]) == 2
    assert "choose 1" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_a_recording_that_cannot_be_written_is_refused_before_any_work(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["look", str(tiny.request.path), "--backbone", "tiny", "--device", "cpu", "--out"]
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path, tmp_path / "file" / "run.rrd"):
        assert main([*words, str(out)]) == 2
        assert "choose another --out" in capsys.readouterr().err
    assert tiny.backbone.calls == 0


def test_view_says_what_to_do_without_a_display(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (tmp_path / "run.rrd").write_bytes(b"RRF2")
    begun = time.monotonic()
    assert main(["view", str(tmp_path / "run.rrd")]) == 2
    assert time.monotonic() - begun < 2
    assert "no display" in capsys.readouterr().err


def test_backbones_lists_every_card_with_its_probes(
    tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backbones", "--json"]) == 0
    found = {each["id"]: each for each in json.loads(capsys.readouterr().out)["backbones"]}
    assert {"toy-wan", "random", "latent", "rgb", "tiny"} <= set(found)
    assert found["tiny"]["probes"] == [[1, 0.3], [1, 0.5], [2, 0.3]]
    assert main(["backbones", "tiny", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone.pop("noise") == []
    assert alone == found["tiny"]


def test_a_reader_that_has_enough_is_no_error() -> None:
    words = [sys.executable, "-m", "explorer.cli", "backbones"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == 141


def test_backbones_shows_what_a_published_model_needs_and_its_noise_levels(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["backbones", "wan2.1-1.3b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"] == "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    assert found["parameters"] > 1.4e9
    assert [row["sigma"] for row in found["noise"]] == sorted(r["sigma"] for r in found["noise"])
    middle = next(row for row in found["noise"] if abs(row["sigma"] - 0.5) < 0.01)
    assert (middle["timestep"], middle["official_index"]) == (499, 751)
    assert main(["backbones", "wan2.1-1.3b"]) == 0
    assert "official index" in capsys.readouterr().out
    assert main(["backbones", "--download"]) == 2
    assert "say which" in capsys.readouterr().err


def test_a_look_with_weights_that_are_not_here_says_how_to_get_them(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("explorer.backbones._weights._cached", lambda card: None)
    assert main(["look", str(tiny.request.path), "--backbone", "wan2.1-14b"]) == 2
    assert "emerge3d backbones wan2.1-14b --download" in capsys.readouterr().err


def test_a_look_runs_published_weights_from_a_folder_without_the_network(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    registry.write_tiny("wan2.1-1.3b", tmp_path / "wan")
    look = ["look", str(tiny.request.path), "--backbone", "wan2.1-1.3b", "--weights"]
    look += [str(tmp_path / "wan"), "--count", "1", "--layer", "2", "--json"]
    first = json.loads((main(look), capsys.readouterr().out)[1])
    assert first["provenance"]["backbone"]["id"] == "wan2.1-1.3b"
    assert first["point_error"] is None, "there is no probe"
    assert first["cached"]["features"] is False
    again = json.loads((main(look), capsys.readouterr().out)[1])
    assert again["cached"]["features"] is True
    other = json.loads((main([*look, "--vae-dtype", "bfloat16"]), capsys.readouterr().out)[1])
    assert other["cached"]["features"] is False


def test_a_look_takes_the_default_cell_of_the_weights_that_are_here(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.write_tiny("wan2.1-1.3b", tmp_path / "wan2.1-1.3b")
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    look = ["look", str(tiny.request.path), "--backbone", "wan2.1-1.3b", "--count", "1", "--json"]
    assert main(look) == 0
    found = json.loads(capsys.readouterr().out)["provenance"]
    layers = registry.fitting_card("wan2.1-1.3b", Target()).layers
    assert found["layer"] == layers - 1 < registry.card("wan2.1-1.3b").default_cell[0]


def test_the_options_of_a_look_reach_the_loader(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.write_tiny("cogvideox-2b", tmp_path)
    asked: list[Target] = []

    def note(backbone: str, target: Target) -> Hashes:
        asked.append(target)
        raise BackboneError("far enough")

    monkeypatch.setattr(registry, "hashes", note)
    look = ["look", str(tiny.request.path), "--backbone", "cogvideox-2b", "--count", "5"]
    look += ["--dtype", "float16", "--vae-dtype", "bfloat16", "--vae-tiling"]
    look += ["--device", "cpu", "--weights", str(tmp_path), "--prompt", "a chair"]
    assert main([*look, "--offload"]) == main([*look, "--compile"]) == 2
    half = Target("cpu", "float16", tmp_path, False, True, "bfloat16", "a chair")
    assert asked == [replace(half, offload=True), replace(half, compile=True)]


def test_doctor_names_what_is_missing_and_what_to_do(
    tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiny.assets / "models" / "some-model").mkdir(parents=True)
    (tiny.assets / "models" / "some-model" / "card.json").write_text('{"trained": false}')
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["assets"]["probes"] == 3
    assert found["packages"]["torch"]
    advice = "\n".join(found["advice"])
    assert "some-model has untrained weights" in advice
    assert "no example clips" in advice
