"""The evaluation, from scenes to its file, with a small backbone and real probes and renderer."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.cli import main
from explorer.data.world_version import WORLD_VERSION
from explorer.errors import EmergeError, ProbeError, SplitError
from explorer.evaluate import cell_id, evaluate, parse_cells, parse_part, write
from explorer.evaluate.parts import join
from explorer.evaluate.table import render_table
from explorer.held_out import _read_figures as read_figures
from explorer.held_out import default_path, held_out, metrics_of
from explorer.metrics import paired_interval
from explorer.probe.checkpoint import load_probe, save_probe
from explorer.toy.ridge import measure
from explorer.toy.ridge_run import parse_cells as parse_ridge_cells

CLIPS = 2


_computed: list[dict[str, Any]] = []


@pytest.fixture
def result(tiny: Any) -> dict[str, Any]:
    """An evaluation of all of `tiny`'s probes, whose weights are the same in every test."""
    if not _computed:
        found = evaluate(parse_cells("all"), clips=CLIPS, device="cpu", mean_scenes=3)
        assert tiny.backbone.encoder_calls == CLIPS, "latents are computed once for each clip"
        assert tiny.backbone.calls == 2 * CLIPS, "one pass for each noise level"
        _computed.append(found)
    return copy.deepcopy(_computed[0])


def test_every_cell_has_means_intervals_and_the_values_of_every_clip(
    result: dict[str, Any],
) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert [cell["id"] for cell in result["cells"]] == ["tiny:1:0.3", "tiny:1:0.5", "tiny:2:0.3"]
    assert len(result["seeds"]) == result["clips"] == CLIPS
    for cell in result["cells"]:
        for name in ("point_error", "depth_error", "correspondence_error_px", "pck"):
            values = cell["per_clip"][name]
            assert len(values) == CLIPS
            assert cell["metrics"][name]["mean"] == pytest.approx(np.mean(values)), name
    mean, still = result["baselines"]
    assert (mean["id"], mean["scenes"]) == ("training mean per pixel", 3)
    assert 0 < mean["metrics"]["point_error"]["mean"] < 2
    assert still["metrics"]["correspondence_error_px"]["mean"] > 0
    assert result["notes"] == []
    first, second = (result["cells"][i]["per_clip"]["point_error"] for i in (0, 2))
    assert first != second


def test_differences_are_between_pairs_of_the_same_clip(tiny: Any) -> None:
    result = evaluate(parse_cells("tiny:1:0.3"), clips=CLIPS, device="cpu", mean_scenes=3)
    found = next(each for each in result["differences"] if each["metric"] == "point_error")
    a = result["cells"][0]["per_clip"]["point_error"]
    b = result["baselines"][0]["per_clip"]["point_error"]
    expected = paired_interval(a, b)
    assert (found["a"], found["b"]) == ("tiny:1:0.3", "training mean per pixel")
    assert (found["mean"], found["low"], found["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )


def test_probes_of_further_seeds_are_judged_on_the_same_features(tiny: Any) -> None:
    (card,) = parse_cells("tiny:1:0.3")
    probe = load_probe(card, backbone_hash=card.backbone_hash)
    for value in probe.state_dict().values():
        value.mul_(1.05)
    facts = {"backbone": "tiny", "backbone_hash": card.backbone_hash, "layer": 1, "sigma": 0.3}
    more = {"data": {**card.data, "seed": 2}, "steps": 7, "seconds": 0.0, "metrics": {}}
    save_probe(probe, tiny.assets / "probes", **facts, **more, seed=2)
    assert len(parse_cells("all")) == 3, "a further seed is not a further cell"
    result = evaluate([card], clips=CLIPS, device="cpu", mean_scenes=3)
    (cell,) = result["cells"]
    first, second = (seed["point_error"] for seed in cell["per_seed"])
    assert first != second
    assert cell["per_clip"]["point_error"] == pytest.approx(np.mean([first, second], axis=0))
    assert cell["metrics"]["point_error"]["mean"] == pytest.approx(np.mean([first, second]))
    assert tiny.backbone.calls == CLIPS
    assert "2 seeds of each probe" in render_table(result)


def test_shipped_ridges_stand_beside_the_probes(tiny: Any) -> None:
    probes = tiny.assets / "probes"
    ridges = measure(
        parse_ridge_cells("tiny:1:0.3"), train=2, validation=1, clips=CLIPS, device="cpu",
        save=probes,
    )  # fmt: skip
    result = evaluate(
        parse_cells("tiny:1:0.3,tiny:2:0.3"), clips=CLIPS, device="cpu", mean_scenes=2, proxies=True
    )
    ours, none = result["cells"]
    assert none["ridge"] is None
    expected = ridges["cells"][0]["per_clip"]
    for name in ("point_error", "depth_error"):
        assert ours["ridge"]["per_clip"][name] == pytest.approx(expected[name])
    assert ours["proxies"]["metrics"]["cycle_mutual_share"]["mean"] > 0
    table = render_table(result)
    assert "ridge's point error" in table
    assert f"{CLIPS} clips of the split 'test' of world version {WORLD_VERSION}" in table


def test_parts_of_an_evaluation_join_to_the_whole(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = parse_cells("tiny:1:0.3,tiny:2:0.3")
    settings = {"clips": 3, "device": "cpu", "mean_scenes": 2, "proxies": True}
    whole = evaluate(cards, **settings)
    parts = [evaluate(cards, **settings, part=(k, 2)) for k in (1, 2)]
    assert [part["clips"] for part in parts] == [2, 1]
    found = join(parts)
    unlike = ("seconds", "machine", "versions")
    for name in whole.keys() - set(unlike):
        assert found[name] == whole[name], name
    assert found["seconds"]["total"] == pytest.approx(sum(p["seconds"]["total"] for p in parts))

    files = [tmp_path / f"{k}.json" for k in range(2)]
    for path, part in zip(files, parts, strict=True):
        write(path, part)
    words = ["eval", "--join", *map(str, files), "--out", str(tmp_path / "all.json")]
    assert main(words) == 0
    assert "3 clips of the split 'test'" in capsys.readouterr().out
    assert json.loads((tmp_path / "all.json").read_text())["seeds"] == whole["seeds"]
    with pytest.raises(EmergeError, match="share scenes"):
        join([parts[0], whole])
    with pytest.raises(EmergeError, match="of other probes"):
        join([parts[0], evaluate(cards[:1], **{**settings, "clips": 1}, part=(1, 1))])
    with pytest.raises(EmergeError, match="differ in noise_seed"):
        join([parts[0], {**parts[1], "noise_seed": 5}])
    files[0].write_text("{}")
    assert main(words) == 2
    assert "is not an evaluation" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2", "0/2", "3/2"])
def test_a_part_that_does_not_exist_is_answered(text: str) -> None:
    with pytest.raises(EmergeError, match="part"):
        parse_part(text)


def test_probes_of_another_world_are_noted(tiny: Any) -> None:
    path = tiny.assets / "probes" / "tiny" / "L01_S0.30.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "data": {}}))
    result = evaluate(parse_cells("tiny:1:0.3"), clips=CLIPS, device="cpu", mean_scenes=2)
    assert result["notes"] == [
        f"Probes of version 1 of the world are judged on scenes of version {WORLD_VERSION}."
    ]


def test_without_options_a_processor_takes_a_subset(
    tiny: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import explorer.evaluate

    asked: dict[str, Any] = {}

    def watched(cards: Any, **named: Any) -> dict[str, Any]:
        asked.update(named, cells=[cell_id(card) for card in cards])
        return evaluate(cards, **{**named, "clips": CLIPS}, mean_scenes=2)

    monkeypatch.setattr(explorer.evaluate, "evaluate", watched)
    for path in (tiny.assets / "probes" / "tiny").glob("*.json"):
        card = json.loads(path.read_text())
        metrics = {"validation_points": card["sigma"] + 0.01 * card["layer"]}
        path.write_text(json.dumps({**card, "metrics": metrics}))
    assert main(["eval", "--device", "cpu"]) == 0
    assert asked["clips"] == 16
    assert asked["cells"] == ["tiny:1:0.3"]
    printed = capsys.readouterr().out
    assert "1. Does video training beat" in printed
    assert "toy-wan: not among the probes evaluated" in printed


def test_the_page_reads_means_of_probes_that_are_still_there(
    tiny: Any, result: dict[str, Any]
) -> None:
    assert held_out() is None
    write(default_path(), result)
    found = held_out()
    assert found is not None
    assert set(found) == {("tiny", 1, 0.3), ("tiny", 1, 0.5), ("tiny", 2, 0.3)}
    expected = result["cells"][0]["metrics"]["point_error"]
    assert found["tiny", 1, 0.3]["point_error"] == expected
    (tiny.assets / "probes" / "tiny" / "L02_S0.30.json").unlink()
    assert set(held_out() or {}) == {("tiny", 1, 0.3), ("tiny", 1, 0.5)}


def test_the_page_shows_test_figures_over_those_of_the_card(
    tiny: Any, result: dict[str, Any]
) -> None:
    from app import map_panel

    card = parse_cells("tiny:1:0.3")[0]
    before = metrics_of(card)
    assert before == card.metrics == {"point_error": 0.5}
    write(default_path(), result)
    found = metrics_of(card)
    assert found["point_error"] == result["cells"][0]["metrics"]["point_error"]
    assert found["pck"]["mean"] > 0
    shown = json.loads(map_panel.value("tiny", "point_error", layer=1, sigma=0.3))
    assert shown["figure"]["data"][0]["z"][0][0] == found["point_error"]["mean"]
    default_path().write_text("not JSON")
    assert metrics_of(card) == before


def test_figures_of_another_world_say_so(tiny: Any, result: dict[str, Any]) -> None:
    assert result["world"] == WORLD_VERSION
    write(default_path(), result)
    assert (held_out() or {})["tiny", 1, 0.3]["present_world"] is True
    without = {name: value for name, value in result.items() if name != "world"}
    for old, version in ((without, 1), ({**result, "world": WORLD_VERSION + 1}, WORLD_VERSION + 1)):
        write(default_path(), old)
        read_figures.cache_clear()
        found = metrics_of(parse_cells("tiny:1:0.3")[0])
        assert (found["world"], found["present_world"]) == (version, False)
        assert found["point_error"] == result["cells"][0]["metrics"]["point_error"]


def test_a_broken_evaluation_says_so(tiny: Any) -> None:
    default_path().write_text('{"cells": 3}')
    with pytest.raises(ProbeError, match="not an evaluation"):
        held_out()
    default_path().write_text('{"cells"')
    with pytest.raises(ProbeError, match="cannot be read"):
        held_out()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    write(path, {"cells": []})
    with pytest.raises(ValueError, match="JSON"):
        write(path, {"cells": [float("nan")]})
    assert json.loads(path.read_text()) == {"cells": []}
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_that_finds_no_room_after_the_work_is_shown_and_said_in_one_line(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, out = tmp_path / "part.json", tmp_path / "whole.json"
    write(parts, evaluate(parse_cells("tiny:1:0.3"), clips=1, device="cpu", mean_scenes=2))

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("explorer.evaluate.replace_file", full)
    assert main(["eval", "--join", str(parts), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert "| tiny:1:0.3 |" in printed.out
    assert f"cannot be written to {out} ([Errno 28] No space left" in printed.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("tiny:0:0.3", r"no probe for 'tiny:0:0.3'; there are: tiny:1:0.3, tiny:1:0.5"),
        ("tiny-5", "write backbone:layer:sigma"),
    ],
)
def test_cells_that_cannot_be_evaluated_are_answered_with_those_that_can(
    tiny: Any, cells: str, message: str
) -> None:
    with pytest.raises(ProbeError, match=message):
        parse_cells(cells)


def test_the_command_writes_where_it_is_told_and_prints_a_table(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import explorer.evaluate

    def quick(*arguments: Any, **named: Any) -> dict[str, Any]:
        return evaluate(*arguments, **named, mean_scenes=2)

    monkeypatch.setattr(explorer.evaluate, "evaluate", quick)
    out = tmp_path / "found.json"
    words = ["eval", "--clips", "1", "--cells", "tiny:1:0.3", "--device", "cpu"]
    assert main([*words, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "| tiny:1:0.3 |" in printed.out
    assert "| correspondence error (px) |" in printed.out
    assert "| nothing moves (px) |" in printed.out
    assert "Give --clips 2 or more" in printed.out
    assert "1/1 clips" in printed.err
    written = json.loads(out.read_text())
    assert written["clips"] == 1
    assert any("only one clip" in note for note in written["notes"])
    assert not default_path().exists()
    assert main([*words, "--write", "--out", str(out)]) == 2
    assert main(["eval", "--clips", "0"]) == 2


def test_a_result_without_a_place_is_refused_before_the_work(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path, tmp_path / "file" / "found.json"):
        assert main(["eval", "--clips", "1", "--device", "cpu", "--out", str(out)]) == 2
        assert "choose another file" in capsys.readouterr().err
    assert tiny.backbone.encoder_calls == 0
    assert not list(tmp_path.glob(".*.tmp"))


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_reading_figures_needs_no_torch() -> None:
    code = (
        "import sys; from explorer.held_out import held_out\n"
        "held_out(); print({'torch', 'explorer.evaluate.run'} & set(sys.modules))"
    )
    assert run_python(code).strip() == "set()"


def test_an_evaluation_needs_only_what_a_bare_gpu_machine_has() -> None:
    absent = (
        "av",
        "cv2",
        "jaxtyping",
        "rerun",
        "tyro",
        "gradio",
        "plotly",
        "accelerate",
        "trimesh",
    )
    run_python(
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "from explorer import _machine; from explorer.evaluate import run\n"
        "from explorer.look.cache import versions; versions()\n"
        "from explorer.evaluate.scenes import render_scene\n"
        "import numpy as np\n"
        "full, half, slots = (144, 256), (72, 128), np.array([0, 1])\n"
        "scene = render_scene(2000000, 5, slots, size=full, maps=[half], device='cpu')\n"
        "from explorer.backbones import registry\n"
        "model = registry.load('latent', device='cpu')\n"
        "features = model.extract(scene.clip, layers=[0], sigma=0.1)[0]\n"
        "from explorer.correspondence import correspondence_summary\n"
        "correspondence_summary(features, scene.exact[full], size=full)\n"
        "run.compare(scene.exact[half], scene.exact[half])\n"
        "_machine.describe_machine()\n"
        "from explorer.evaluate.__main__ import main\n"
        "assert main(['--cells', 'nothing']) == 2\n"
    )


def test_a_probe_that_was_trained_on_test_scenes_is_not_evaluated(tiny: Any) -> None:
    from explorer.data.splits import make_split
    from explorer.data.world.splits import split_scene, split_seeds
    from explorer.probe.training_split import keep_split

    def teach(split: str) -> Any:
        scenes = [split_scene(seed) for seed in split_seeds(split, 3)]
        made = make_split(scenes, name="x", fractions={"train": 1.0}, official=False)
        probes = tiny.assets / "probes"
        path = probes / "tiny" / "L01_S0.30.json"
        card = json.loads(path.read_text())
        path.write_text(json.dumps({**card, "data": {"split": made.reference}}))
        return keep_split(probes, made)

    teach("test")
    with pytest.raises(SplitError, match="share scenes: world-2/2000000"):
        evaluate(parse_cells("all"), clips=1, device="cpu", mean_scenes=1)
    assert tiny.backbone.calls == 0
    teach("train").unlink()
    result = evaluate(parse_cells("tiny:1:0.3"), clips=1, device="cpu", mean_scenes=1)
    assert "nobody can say whether it has seen these scenes" in result["notes"][-1]
