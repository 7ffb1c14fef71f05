"""Weights of VGGT as a reference: where they are found, and which are refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import TINY_VGGT
from vggt_samples import clip, small, write

from explorer import references
from explorer.backbones import _memory
from explorer.errors import NoReconstruction, ReferenceError3D
from explorer.nets.pose import decode_pose
from explorer.references import _published, _room, _vggt_files, _vggt_run


def test_weights_that_are_here_for_the_backbone_serve_the_reference_too(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    write(tmp_path / "vggt-1b", state)
    assert _vggt_files.published().folder == tmp_path / "vggt-1b"
    write(tmp_path / "vggt", state)
    assert _vggt_files.published().folder == tmp_path / "vggt"


def test_missing_weights_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMERGE3D_WEIGHTS", raising=False)
    monkeypatch.setattr(_published, "_cached", lambda source: None)
    assert "vggt" not in references.offered()
    with pytest.raises(ReferenceError3D, match="emerge3d references vggt --download"):
        references.reconstruct("vggt", clip())


def test_an_empty_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    (tmp_path / "vggt").mkdir()
    with pytest.raises(ReferenceError3D, match=r"no files of weights.*model\.safetensors"):
        references.reconstruct("vggt", clip())


def damage(kind: str, folder: Path, state: dict[str, torch.Tensor]) -> None:
    first = next(iter(state))
    match kind:
        case "another shape":
            write(folder, {**state, first: state[first][..., :1].contiguous()})
        case "a name is missing":
            write(folder, {name: value for name, value in state.items() if name != first})
        case "an unexpected name":
            write(folder, {**state, "extra": torch.zeros(1)})
        case "cut short":
            path = folder / "model.safetensors"
            path.write_bytes(path.read_bytes()[:-100])
        case "not finite":
            name = "depth_head.norm.weight"
            write(folder, {**state, name: torch.full_like(state[name], torch.nan)})
        case "configuration":
            (folder / "config.json").write_text(json.dumps({**asdict(TINY_VGGT), "colour": 1}))
        case "layers":
            wrong = asdict(replace(TINY_VGGT, dpt_layers=(0, 1, 2, 2)))
            (folder / "config.json").write_text(json.dumps(wrong))
        case "a program":
            (folder / "model.safetensors").unlink()
            torch.save({"model": state, "run": Path()}, folder / "model.pt")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("another shape", "of another shape"),
        ("a name is missing", "1 missing"),
        ("an unexpected name", "1 unexpected: extra"),
        ("cut short", "damaged"),
        ("not finite", "not finite"),
        ("configuration", "config.json"),
        ("layers", "dpt_layers"),
        ("a program", "can run any program"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    kind: str,
    message: str,
    weights: Path,
    state: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small(monkeypatch)
    damage(kind, weights, state)
    with pytest.raises(ReferenceError3D, match=message):
        references.reconstruct("vggt", clip())


def test_too_little_memory_is_said_before_anything_is_loaded(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_memory, "free", lambda device: 10_000)
    monkeypatch.setattr(_vggt_run, "_load", None)
    with pytest.raises(ReferenceError3D, match="take fewer frames"):
        references.reconstruct("vggt", clip())


def test_weights_that_are_loaded_are_not_asked_for_again(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    asked: list[int] = []
    make_room = _room.make_room

    def noted(need: int, device: str, what: str) -> None:
        asked.append(need)
        make_room(need, device, what)

    monkeypatch.setattr(_room, "make_room", noted)
    for _ in range(2):
        references.reconstruct("vggt", clip())
    assert asked[0] - asked[1] == 4 * _vggt_run._parameters(TINY_VGGT)


def test_a_pass_that_runs_out_of_memory_is_no_traceback(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    small(monkeypatch)
    monkeypatch.setattr(_vggt_run, "infer", full)
    with pytest.raises(ReferenceError3D, match="5 frames by this VGGT do not fit"):
        references.reconstruct("vggt", clip())


@pytest.mark.parametrize("name", ["vggt", "vggt-point-head"])
@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (torch.inf, NoReconstruction, "no field of view in 1 of 5 frames"),
        (torch.nan, ReferenceError3D, "not finite"),
    ],
)
def test_cameras_that_are_not_finite_are_refused(
    name: str,
    value: float,
    kind: type[Exception],
    message: str,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def blind(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        pose, lens = decode_pose(*arguments)
        lens[1, 0, 0] = value
        return pose, lens

    small(monkeypatch)
    monkeypatch.setattr(_vggt_run, "decode_pose", blind)
    with pytest.raises(kind, match=message):
        references.reconstruct(name, clip())


@pytest.mark.parametrize("size", [[42, 71], [0, 70], [42], "large", ["a", "b"]])
def test_a_card_with_another_size_than_whole_patches_is_refused(size: Any, weights: Path) -> None:
    (weights / "card.json").write_text(json.dumps({"input": size}))
    with pytest.raises(ReferenceError3D, match=r"card\.json"):
        references.reconstruct("vggt", clip())


def test_tracks_are_left_out_of_a_published_file(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    write(tmp_path / "vggt", {**state, "track_head.tracker.weight": torch.zeros(3)})
    assert references.reconstruct("vggt", clip(2)) is not None
