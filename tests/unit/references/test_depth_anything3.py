"""Depth Anything 3, with a stand-in for its package, and with the package itself where it is."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from explorer import references
from explorer.camera import project
from explorer.clip import Clip, clip_from_frames
from explorer.errors import Cancelled, ReferenceError3D
from explorer.references import Context, _da3_run, _published, _room, depth_anything3
from explorer.store import Store

HERE = importlib.util.find_spec("depth_anything_3") is not None


@dataclass
class Prediction:
    depth: Any
    is_metric: int = 0
    sky: Any = None
    conf: Any = None
    extrinsics: Any = None
    intrinsics: Any = None
    processed_images: Any = None
    gaussians: Any = None
    aux: Any = None
    scale_factor: float | None = None


class DepthAnything3(nn.Module):
    """The signatures of release 0.1.1, and a network of two numbers."""

    seen: list[Any] = []
    last: dict[str, Any] = {}

    def __init__(self, model_name: str = "da3-large", **kwargs: Any) -> None:
        super().__init__()
        self.model_name = model_name
        self.model = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
        self.same = self.model[1]  # files hold it once

    def inference(
        self,
        image: list[Any],
        extrinsics: Any = None,
        intrinsics: Any = None,
        align_to_input_ext_scale: bool = True,
        infer_gs: bool = False,
        use_ray_pose: bool = False,
        ref_view_strategy: str = "saddle_balanced",
        render_exts: Any = None,
        render_ixts: Any = None,
        render_hw: tuple[int, int] | None = None,
        process_res: int = 504,
        process_res_method: str = "upper_bound_resize",
        export_dir: str | None = None,
        export_format: str = "mini_npz",
        export_feat_layers: Sequence[int] | None = None,
        conf_thresh_percentile: float = 40.0,
        num_max_points: int = 1_000_000,
        show_cameras: bool = True,
        feat_vis_fps: int = 15,
        export_kwargs: Any = {},  # noqa: B006
    ) -> Prediction:
        self.seen.append((self.model_name, image, process_res))
        count, (height, width) = len(image), image[0].shape[:2]
        with torch.inference_mode():
            level = float(self.model[1](self.model[0](torch.ones(1, 1))))
        depth = level + np.linspace(0, 1, width, dtype=np.float32)
        pose = np.tile(np.eye(3, 4, dtype=np.float32), (count, 1, 1))
        pose[:, 0, 3] = -np.arange(count)
        lens = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], np.float32)
        found = {
            "depth": np.broadcast_to(depth, (count, height, width)),
            "conf": np.full((count, height, width), 1.5, np.float32),
            "extrinsics": pose,
            "intrinsics": np.tile(lens, (count, 1, 1)),
        }
        return Prediction(**{**found, **self.last})


STATE = {
    "model.0.weight": torch.full((1, 1), 2.0),
    "model.0.bias": torch.zeros(1),
    "model.1.weight": torch.full((1, 1), 1.5),
    "model.1.bias": torch.full((1,), 1.0),
}


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type[DepthAnything3]:
    for name in ("depth_anything_3", "depth_anything_3.api"):
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module)["DepthAnything3"] = DepthAnything3
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(DepthAnything3, "seen", [])
    monkeypatch.setattr(DepthAnything3, "last", {})
    _room._kept.clear()
    return DepthAnything3


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    (tmp_path / "da3-base").mkdir()
    path = tmp_path / "da3-base" / "model.safetensors"
    save_file(STATE, path)
    return path


def clip(count: int = 4) -> Clip:
    frames = np.random.default_rng(0).integers(0, 256, (count, 72, 128, 3), dtype=np.uint8)
    return clip_from_frames(frames, name="noise")


def test_depth_and_cameras_become_a_normalised_reconstruction(
    package: type[DepthAnything3], weights: Path
) -> None:
    found = references.reconstruct("da3-base", clip())
    assert found is not None
    ((name, pictures, longest),) = package.seen
    assert (name, longest) == ("da3-base", 504)
    assert [picture.shape for picture in pictures] == [(280, 504, 3)] * 4
    assert found.size == (280, 504)
    assert found.frames.tolist() == [0, 1, 2, 3]
    unit = found.provenance["unit"]
    # 1.5 * 2 + 1 = 4 is what the weights say
    np.testing.assert_allclose(found.depth[2, 7, [0, -1]] * unit, [4, 5], rtol=1e-6)
    np.testing.assert_allclose(found.cameras.centers[:, 0] * unit, [0, 1, 2, 3], atol=1e-6)
    assert np.linalg.norm(found.points[0], axis=-1).mean() == pytest.approx(1, rel=1e-5)
    pixels, _ = project(
        found.points[3].reshape(-1, 3).astype(np.float64),
        found.cameras.cam_from_world[3].astype(np.float64),
        found.cameras.intrinsics[3].astype(np.float64),
    )
    y, x = np.divmod(np.arange(280 * 504), 504)
    np.testing.assert_allclose(pixels, np.stack([x + 0.5, y + 0.5], axis=1), atol=1e-2)
    assert found.provenance["licence"] == "Apache-2.0"
    assert found.provenance["estimate"]


def test_what_was_estimated_is_kept_for_these_weights(
    package: type[DepthAnything3],
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = Context(store=Store(tmp_path / "store"))
    first = references.reconstruct("da3-base", clip(), context)
    again = references.reconstruct("da3-base", clip(), context)
    assert first is not None
    assert again is not None
    assert len(package.seen) == 1
    np.testing.assert_array_equal(first.points, again.points)
    save_file({**STATE, "model.1.bias": torch.full((1,), 9.0)}, weights)
    references.reconstruct("da3-base", clip(), context)
    assert len(package.seen) == 2
    monkeypatch.setattr(depth_anything3, "_release", lambda: "0.2.0")
    references.reconstruct("da3-base", clip(), context)
    assert len(package.seen) == 3


def test_a_stretched_clip_is_seen_in_its_true_shape(
    package: type[DepthAnything3], weights: Path
) -> None:
    stretched = replace(clip(), fit="stretch", crop=(0, 0, 144, 512))

    def decode(size: tuple[int, int]) -> Clip:
        return clip_from_frames(np.zeros((4, *size, 3), dtype=np.uint8), name="finer")

    found = references.reconstruct("da3-base", stretched, Context(decode=decode))
    assert found is not None
    assert found.size == (140, 504)


def test_stop_is_asked_before_each_block(package: type[DepthAnything3], weights: Path) -> None:
    asked: list[None] = []
    context = Context(should_stop=lambda: asked.append(None) or len(asked) > 2)
    with pytest.raises(Cancelled):
        references.reconstruct("da3-base", clip(), context)
    assert len(asked) == 3


def test_only_networks_with_cameras_and_an_apache_licence_are_in_the_list() -> None:
    mine = {each["id"]: each for each in references.describe() if each["id"].startswith("da3-")}
    assert set(mine) == {"da3-small", "da3-base"}
    assert all(each["licence"] == "Apache-2.0" for each in mine.values())


def test_without_the_package_it_is_not_offered_and_says_how_to_get_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "da3-base" not in references.offered()
    with pytest.raises(ReferenceError3D, match="pip install --no-deps depth-anything-3==0.1.1"):
        references.reconstruct("da3-base", clip())


def test_without_weights_it_says_how_to_get_them_and_fetches_nothing(
    package: type[DepthAnything3], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_published, "_cached", lambda source: None)
    assert "da3-base" in references.offered()
    assert "da3-small" not in references.offered()
    with pytest.raises(ReferenceError3D, match="emerge3d references da3-small --download"):
        references.reconstruct("da3-small", clip())
    weights.unlink()
    with pytest.raises(ReferenceError3D, match=r"holds no model\.safetensors"):
        references.reconstruct("da3-base", clip())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.0.bias": None}, "1 missing: model.0.bias"),
        ({"model.1.bias": None}, "2 missing"),
        ({"model.0.bias": torch.zeros(2)}, "of another shape"),
        ({"model.0.bias": torch.full((1,), torch.nan)}, "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: dict[str, Any], message: str, package: type[DepthAnything3], weights: Path
) -> None:
    state = {name: value for name, value in {**STATE, **change}.items() if value is not None}
    save_file(state, weights)
    with pytest.raises(ReferenceError3D, match=message):
        references.reconstruct("da3-base", clip())


def test_what_the_network_has_no_place_for_is_left_out(
    package: type[DepthAnything3], weights: Path
) -> None:
    save_file({**STATE, "model.gs_head.weight": torch.zeros(2)}, weights)
    assert references.reconstruct("da3-base", clip()) is not None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"extrinsics": None}, "gives nothing as extrinsics"),
        ({"depth": np.ones((4, 10, 10), np.float32)}, r"shape \(4, 10, 10\) as depth"),
    ],
)
def test_another_answer_than_that_of_the_known_release_is_refused(
    answer: dict[str, Any],
    message: str,
    package: type[DepthAnything3],
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DepthAnything3, "last", answer)
    with pytest.raises(ReferenceError3D, match=message):
        references.reconstruct("da3-base", clip())


def test_too_little_memory_asks_for_fewer_frames(
    package: type[DepthAnything3], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DepthAnything3, "inference", full)
    with pytest.raises(ReferenceError3D, match="take fewer frames"):
        references.reconstruct("da3-base", clip())


@pytest.mark.skipif(not HERE, reason="the package depth-anything-3 is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_package_itself_with_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DA3_LOG_LEVEL", "ERROR")
    from depth_anything_3 import api

    for name in ("__init__", "inference"):
        theirs, ours = (
            list(inspect.signature(_method(kind, name)).parameters)
            for kind in (api.DepthAnything3, DepthAnything3)
        )
        assert theirs == ours
    torch.manual_seed(0)
    (tmp_path / "da3-small").mkdir()
    network = api.DepthAnything3(model_name="da3-small")
    assert sum(each.numel() for each in network.parameters()) == 34_299_463
    save_model(network, str(tmp_path / "da3-small" / "model.safetensors"))  # as the hub does
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(depth_anything3, "LONGEST", 126)
    _room._kept.clear()
    capfd.readouterr()
    found = references.reconstruct("da3-small", clip(3))
    assert capfd.readouterr().out == ""
    assert found is not None
    assert found.size == (70, 126)
    assert found.confidence.min() >= 1
    frames = [_da3_run.resize(frame, (70, 126)) for frame in clip(3).frames]
    direct = network.inference(frames, process_res=126)
    unit = found.provenance["unit"]
    np.testing.assert_allclose(found.depth * unit, direct.depth, rtol=1e-2)
    asked: list[None] = []
    context = Context(should_stop=lambda: asked.append(None) or len(asked) > 5)
    with pytest.raises(Cancelled):
        references.reconstruct("da3-small", clip(3), context)


def _method(kind: type, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(kind, name)
    return found
