"""The ridge experiment, from scenes to its file, with a small backbone and the real renderer."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.data.world.splits import split_seeds
from explorer.errors import BackboneError, EmergeError, ProbeError
from explorer.evaluate import evaluate
from explorer.evaluate import parse_cells as parse_probes
from explorer.metrics import paired_interval
from explorer.probe.ridge import TARGETS, token_errors
from explorer.probe.ridge_files import find_ridge, load_ridge
from explorer.toy.cells import Cell
from explorer.toy.ridge import MEAN, choose, main, measure
from explorer.toy.ridge_run import RidgeRun, TokenMean, parse_cells

CLIPS = 2


_computed: list[tuple[dict[str, Any], Path]] = []


@pytest.fixture
def measured(tiny: Any, tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """What was measured, and the folder of the ridges that were kept, once for this file."""
    if not _computed:
        found = measure(
            parse_cells("tiny:1:0.3,tiny:2:0.5"),
            train=2,
            validation=1,
            clips=CLIPS,
            device="cpu",
            proxies=True,
            save=tmp_path / "ridges",
        )
        clips = 2 + 1 + CLIPS
        assert tiny.backbone.encoder_calls == clips, "latents are computed once for each clip"
        assert tiny.backbone.calls == 2 * clips, "one pass for each noise level"
        _computed.append((found, tmp_path / "ridges"))
    return copy.deepcopy(_computed[0])


def test_every_cell_has_errors_on_test_clips_and_a_fit_chosen_on_others(
    measured: tuple[dict[str, Any], Path],
) -> None:
    result, kept = measured
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert [cell["id"] for cell in result["cells"]] == ["tiny:1:0.3", "tiny:2:0.5"]
    assert all(seed in split_seeds("test", 20) for seed in result["seeds"])
    for cell in result["cells"]:
        assert set(cell["validation_r2"]) == set(cell["penalties"]) == set(TARGETS)
        assert len(cell["per_clip"]["point_error"]) == CLIPS
        assert cell["metrics"]["point_error"]["mean"] == pytest.approx(
            np.mean(cell["per_clip"]["point_error"])
        )
        assert 0 < cell["metrics"]["depth_error"]["mean"] < 2
        assert cell["channels"] == 8 + 36
        assert cell["proxies"]["metrics"]["cycle_mutual_share"]["mean"] > 0
    # The cell of layer 2 at sigma 0.5 has no probe.
    assert result["cells"][0]["probe"]["metrics"]["point_error"]["mean"] > 0
    assert result["cells"][1]["probe"] is None
    card = find_ridge(kept, "tiny", 2, 0.5)
    assert card is not None
    assert card.metrics == result["cells"][1]["metrics"]
    assert load_ridge(card, backbone_hash="tiny-1").clips == (2, 1)
    with pytest.raises(ProbeError, match="other weights"):
        load_ridge(card, backbone_hash="tiny-2")


def test_clips_are_those_of_the_probes_evaluation_and_differences_pair_them(
    tiny: Any, measured: tuple[dict[str, Any], Path]
) -> None:
    result, _ = measured
    probes = evaluate(parse_probes("tiny:1:0.3"), clips=CLIPS, device="cpu", mean_scenes=1)
    assert result["seeds"] == probes["seeds"]
    assert result["noise_seed"] == probes["noise_seed"]
    best = result["chosen"]["tiny"]
    scores = {cell["id"]: cell["validation_r2"]["points"] for cell in result["cells"]}
    assert best == max(scores, key=lambda name: scores[name])
    found = next(each for each in result["differences"] if each["metric"] == "point_error")
    assert (found["a"], found["b"]) == (best, MEAN)
    mine = next(cell for cell in result["cells"] if cell["id"] == best)
    expected = paired_interval(
        mine["per_clip"]["point_error"], result["baselines"][0]["per_clip"]["point_error"]
    )
    assert (found["mean"], found["low"], found["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )


def test_a_choice_looks_at_validation_alone() -> None:
    def cell(name: str, backbone: str, r2: float, error: float) -> dict[str, Any]:
        return {
            "id": name,
            "backbone": backbone,
            "validation_r2": {"points": r2, "log_depth": -r2},
            "metrics": {"point_error": {"mean": error}},
        }

    found = [cell("a1", "a", 0.2, 0.1), cell("a2", "a", 0.4, 0.9), cell("b1", "b", -1.0, 0.0)]
    assert choose(found) == {"a": "a2", "b": "b1"}


def test_the_training_mean_leaves_out_tokens_without_geometry(tiny: Any) -> None:
    cells = [Cell("tiny", 1, 0.3)]
    run = RidgeRun(cells, device="cpu", position=True)
    targets = [run.target(cells[0], scenes) for _, scenes in run.scenes("train", 3)]
    mean = TokenMean()
    mean.add(targets[0])
    assert mean.errors(targets[0]) == pytest.approx(
        {"depth_error": 0.0, "point_error": 0.0}, abs=1e-5
    )
    for target in targets[1:]:
        mean.add(target)
    assert all(error > 0.01 for error in mean.errors(targets[0]).values())
    assert token_errors(targets[0], targets[0])["point_error"] == pytest.approx(0.0, abs=1e-5)


def test_noise_differs_between_training_scenes(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    extract = type(tiny.backbone).extract

    def watched(self: Any, clip: Any, **named: Any) -> Any:
        seeds.append(named["seed"])
        return extract(self, clip, **named)

    monkeypatch.setattr(type(tiny.backbone), "extract", watched)
    measure(parse_cells("tiny:1:0.3"), train=2, validation=1, clips=2, device="cpu", probes=False)
    assert len(set(seeds[:3])) == 3
    assert seeds[3:] == [0, 0]


def test_cells_are_read_once_and_without_noise_where_none_is_seen(tiny: Any) -> None:
    assert parse_cells("rgb:0:0.7, tiny:-1:0.3,rgb:0:0,tiny:2:0.3") == [
        Cell("rgb", 0, 0.0),
        Cell("tiny", 2, 0.3),
    ]


@pytest.mark.parametrize(
    ("cells", "error", "message"),
    [
        ("tiny", ProbeError, "write backbone:layer:sigma"),
        ("tiny:one:0.3", ProbeError, "write backbone:layer:sigma"),
        ("tiny:9:0.3", BackboneError, "layers 0 to 2"),
        ("tiny:1:1.5", ProbeError, "sigma is the fraction of noise"),
        ("nothing:1:0.5", BackboneError, "no backbone 'nothing'"),
    ],
)
def test_cells_that_do_not_exist_are_answered(
    tiny: Any, cells: str, error: type[EmergeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        parse_cells(cells)


def test_the_command_writes_where_it_is_told_and_prints_a_table(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "ridge.json"
    words = [
        "--train",
        "2",
        "--validation",
        "1",
        "--clips",
        "1",
        "--device",
        "cpu",
        "--no-position",
    ]
    assert main([*words, "--cells", "tiny:1:0.3", "--no-probes", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "| tiny:1:0.3 |" in printed.out
    assert f"| {MEAN} |" in printed.out
    assert "test 1/1" in printed.err
    written = json.loads(out.read_text())
    assert written["cells"][0]["channels"] == 8
    assert written["cells"][0]["probe"] is written["cells"][0]["proxies"] is None
    assert main(["--cells", "tiny:7:0.3"]) == 2
    assert "layers 0 to 2" in capsys.readouterr().err
    assert main(["--cells", "tiny:1:0.3", "--clips", "0"]) == 2
    assert "at least 1 of each" in capsys.readouterr().err


def test_a_result_without_a_place_is_refused_before_the_work(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    out = str(tmp_path / "file" / "ridge.json")
    for option in ("--out", "--save"):
        assert main(["--cells", "tiny:1:0.3", "--device", "cpu", option, out]) == 2
        assert "choose another" in capsys.readouterr().err
    assert tiny.backbone.encoder_calls == 0


def test_a_ridge_needs_only_what_a_bare_gpu_machine_has() -> None:
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
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "import torch; torch.set_num_threads(1)\n"
        "from explorer.toy.ridge import measure\n"
        "from explorer.toy.ridge_run import RidgeRun, parse_cells\n"
        "run = RidgeRun(parse_cells('rgb:0:0'), device='cpu', position=True)\n"
        "run.target(run.cells[0], next(run.scenes('train', 1))[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
