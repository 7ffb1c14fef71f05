"""A small world to look at: a backbone of numpy, a probe of a few channels, an exact reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from small_models import small_card

from explorer.backbones import loaded, registry
from explorer.backbones.base import Backbone, never, slot_map, stop_check
from explorer.clip import Clip
from explorer.features import Features
from explorer.look import LookRequest
from explorer.store import Store

SIZE = (64, 96)
GRID = (4, 6)
CHANNELS = 8

CARD = small_card(
    "tiny", kind="test", width=CHANNELS, input_size=SIZE, max_frames=9, token_grid=GRID
)


class TinyBackbone(Backbone):
    """Latents are block means; layer n is a fixed random projection n of noisy latents."""

    @property
    def weights_hash(self) -> str:
        return "tiny-1"

    @property
    def encoder_hash(self) -> str:
        return "tiny-encoder-1"

    def timestep(self, sigma: float) -> tuple[float, int]:
        return 1000.0 * sigma, round(1000 * (1 - sigma))

    def encode(self, clip: Clip, *, should_stop: Callable[[], bool] = never) -> np.ndarray:
        stop_check(should_stop)
        self.encoder_calls += 1
        slots = slot_map(len(clip.frames), 4)[1]
        frames = clip.frames[slots].astype(np.float32) / 255
        blocks = frames.reshape(len(slots), GRID[0], 16, GRID[1], 16, 3).mean(axis=(2, 4))
        return np.ascontiguousarray(blocks.transpose(3, 0, 1, 2))

    def extract(
        self,
        clip: Clip,
        *,
        layers: Sequence[int],
        sigma: float,
        seed: int = 0,
        latents: np.ndarray | None = None,
        should_stop: Callable[[], bool] = never,
    ) -> dict[int, Features]:
        self.check(clip, layers, sigma)
        stop_check(should_stop)
        self.calls += 1
        found = self.encode(clip) if latents is None else latents
        noise = np.random.default_rng(seed).normal(size=found.shape)
        noisy = ((1 - sigma) * found + sigma * noise).transpose(1, 2, 3, 0)
        frame_to_slot, slot_frames = slot_map(len(clip.frames), 4)
        timestep, index = self.timestep(sigma)
        return {
            layer: Features(
                values=(noisy @ np.random.default_rng(layer).normal(size=(3, CHANNELS))).astype(
                    np.float16
                ),
                frame_to_slot=frame_to_slot,
                slot_frames=slot_frames,
                backbone="tiny",
                backbone_hash=self.weights_hash,
                layer=layer,
                sigma=sigma,
                timestep=timestep,
                official_index=index,
                seed=seed,
                provenance={"device": "cpu", "dtype": "float32", "trained": False},
            )
            for layer in layers
        }


@dataclass(frozen=True)
class Tiny:
    """What the tests of a look need."""

    backbone: TinyBackbone
    request: LookRequest
    store: Store
    assets: Path

    def ask(self, **changes: object) -> LookRequest:
        return replace(self.request, **changes)


def _write_geometry(path: Path, count: int) -> None:
    from explorer.data.geometry import save_geometry

    height, width = SIZE
    y, x = np.mgrid[0:height, 0:width]
    depth = np.stack([2 + np.sin(x / 20 + k / 9) + y / height for k in range(count)])
    depth[:, :4] = 0  # sky
    pose = np.tile(np.eye(4)[:3], (count, 1, 1))
    pose[:, 0, 3] = -0.05 * np.arange(count)
    matrix = np.array([[90.0, 0, width / 2], [0, 90.0, height / 2], [0, 0, 1]])
    save_geometry(
        path,
        depth=depth.astype(np.float32),
        surface=np.zeros(depth.shape, dtype=np.uint8),
        cam_from_world=pose.astype(np.float32),
        intrinsics=np.tile(matrix, (count, 1, 1)).astype(np.float32),
        attributes={},
    )


def _write_probes(root: Path) -> None:
    import torch

    from explorer.data.world_version import WORLD_VERSION
    from explorer.probe.checkpoint import save_probe
    from explorer.probe.model import Probe, ProbeConfig

    config = replace(
        ProbeConfig.compact(CHANNELS),
        dim=16,
        heads=2,
        dpt_dim=8,
        dpt_stage_channels=(8, 8, 8, 8),
        dpt_hidden=8,
        camera_dim=16,
        camera_depth=1,
        camera_heads=2,
        output_size=(16, 24),
        grid=GRID,
        output_bias=None,
    )
    for layer, sigma in ((1, 0.3), (1, 0.5), (2, 0.3)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(layer)
            probe = Probe(config)
        save_probe(
            probe,
            root,
            backbone="tiny",
            backbone_hash="tiny-1",
            layer=layer,
            sigma=sigma,
            data={"world_version": WORLD_VERSION},
            steps=7,
            seconds=0.0,
            metrics={"point_error": 0.5},
            trained=False,
        )


@pytest.fixture
def tiny(tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A backbone `tiny` with probes at three cells, and a 5-frame clip with exact geometry."""
    from explorer.clip import load_clip
    from explorer.references import exact

    registry.cards()  # let the shipped ones register first
    backbone = TinyBackbone(CARD)
    entry = registry.Entry(CARD, lambda card, target: backbone, None, None, None, None)
    monkeypatch.setitem(registry._entries, "tiny", entry)
    monkeypatch.setattr(loaded, "models", {})
    assets = tmp_path / "assets"
    _write_probes(assets / "probes")
    monkeypatch.setenv("EMERGE3D_ASSETS", str(assets))
    monkeypatch.setenv("EMERGE3D_CACHE", str(tmp_path / "store"))
    video = make_video("clip.mp4", count=7, size=SIZE)
    _write_geometry(tmp_path / "clip.safetensors", 7)
    source_hash = load_clip(video, count=1, size=SIZE).source_hash
    monkeypatch.setattr(exact, "_registered", {source_hash: tmp_path / "clip.safetensors"})
    request = LookRequest(path=video, backbone="tiny", layer=1, sigma=0.3, count=5, device="cpu")
    return Tiny(backbone, request, Store(tmp_path / "store"), assets)


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
