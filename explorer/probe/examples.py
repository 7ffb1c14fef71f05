"""What a probe is trained on: features of one cell and reference geometry of prepared scenes.

Both are computed once, kept in a folder, and read a few frames at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from explorer import _look_cache as cache
from explorer._typing import Float, Int
from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes, never, stop_check
from explorer.camera import Cameras, unproject
from explorer.clip import Clip
from explorer.data.prepared.scene import PreparedScene
from explorer.data.view_sampler import ViewRule, evaluation_frames, training_frames
from explorer.errors import NoReconstruction, ProbeError
from explorer.features import Features
from explorer.probe.losses import Targets, normalize_targets
from explorer.reconstruction import Reconstruction
from explorer.store import Store
from explorer.window import most_frames

GEOMETRY = ("depth", "confidence", "cam_from_world", "intrinsics")


@dataclass(frozen=True)
class Cell:
    """Which features a probe reads.

    Attributes:
        backbone: registry id.
        layer: 0-based block output.
        sigma: fraction of noise.
        seed: of the noise, the same for every clip.
        target: device, precision and weights of the backbone.
    """

    backbone: str
    layer: int
    sigma: float
    seed: int = 0
    target: Target = Target()


@dataclass(frozen=True)
class Example:
    """One scene, ready to be read.

    Attributes:
        scene: its name.
        identity: sha256 of its recording; frames are drawn by it.
        features: file with `values` (S, h, w, C).
        geometry: file with maps and cameras of the slots' frames.
        frame_to_slot: (T,) slot that holds each frame of the clip.
    """

    scene: str
    identity: str
    features: Path
    geometry: Path
    frame_to_slot: Int[np.ndarray, " T"]

    def read(self, frames: Int[np.ndarray, " V"]) -> dict[str, np.ndarray]:
        """`values` (V, h, w, C) and `GEOMETRY` of the slots of some frames; reads no other slot."""
        slots = [int(slot) for slot in self.frame_to_slot[frames]]
        found = {"values": _rows(self.features, "values", slots)}
        return found | {name: _rows(self.geometry, name, slots) for name in GEOMETRY}


class Examples:
    """Scenes of one side of a split at one cell.

    Args:
        scenes: to train on, or to test.
        cell: whose features.
        map_size: (H, W) of the geometry.
        folder: where features and geometry are kept.
        stride: distance between frames of a scene; as wide as the scene allows when None.
        views: frames a draw, fewer where a clip has fewer slots.
        on_scene: called with (done, total, name, seconds or None) after each scene.
        should_stop: asked between scenes and while features are computed.

    Raises:
        BackboneError: the backbone, its layer or noise level do not exist, or it cannot be loaded.
        ProbeError: no scene has geometry for the slots' frames.
        Cancelled: `should_stop` became true; features of whole scenes stay.
    """

    def __init__(
        self,
        scenes: Sequence[PreparedScene],
        cell: Cell,
        *,
        map_size: tuple[int, int],
        folder: Path,
        stride: int | None = None,
        views: int = 4,
        on_scene: Callable[[int, int, str], None] = lambda done, total, name: None,
        should_stop: Callable[[], bool] = never,
    ) -> None:
        self.cell, self.map_size, self.stride = cell, map_size, stride
        self.card: BackboneCard = registry.fitting_card(cell.backbone, cell.target)
        self.hashes: Hashes = registry.hashes(cell.backbone, cell.target)
        # Never pruned: what one epoch reads first is what the next one needs first.
        self._store = Store(folder, max_bytes=sys.maxsize)
        self.items: list[Example] = []
        self.skipped: dict[str, str] = {}
        for done, scene in enumerate(scenes, start=1):
            stop_check(should_stop)
            try:
                self.items.append(self._example(scene, should_stop))
            except NoReconstruction as error:
                self.skipped[scene.name] = str(error)
            on_scene(done, len(scenes), scene.name)
        if scenes and not self.items:
            name, reason = next(iter(self.skipped.items()))
            raise ProbeError(f"none of the scenes can be trained on; {name}: {reason}")
        self.rule = self._rule(views) if self.items else ViewRule()

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.items)

    @property
    def channels(self) -> int:
        """Of the features."""
        with safe_open(self.items[0].features, framework="numpy") as file:
            return int(file.get_slice("values").get_shape()[-1])

    def draw(self, index: int, *, seed: int, draw: int) -> dict[str, np.ndarray]:
        """A training example of one scene; see `Example.read`."""
        item = self.items[index]
        frames = training_frames(item.identity, seed=seed, draw=draw, rule=self.rule)
        return item.read(frames)

    def fixed(self, index: int) -> dict[str, np.ndarray]:
        """The frames that one scene is always evaluated at; see `Example.read`."""
        item = self.items[index]
        return item.read(evaluation_frames(item.identity, rule=self.rule))

    def evaluation(self, index: int) -> tuple[Features, Reconstruction]:
        """Features and normalised geometry of the same frames, for `predict` and `compare`."""
        item, cell = self.items[index], self.cell
        frames = evaluation_frames(item.identity, rule=self.rule)
        part = item.read(frames)
        features = Features(
            values=part["values"],
            frame_to_slot=np.arange(len(frames)),
            slot_frames=frames,
            backbone=cell.backbone,
            backbone_hash=self.hashes.weights,
            layer=cell.layer,
            sigma=cell.sigma,
            timestep=float("nan"),  # known where they were made, needed by nobody here
            official_index=-1,
            seed=cell.seed,
        )
        cameras = Cameras(part["cam_from_world"], part["intrinsics"], self.map_size)
        reference = Reconstruction(
            frames=frames,
            depth=part["depth"],
            points=unproject(part["depth"], cameras),
            confidence=part["confidence"],
            cameras=cameras,
            source=f"prepared {item.scene}",
        )
        return features, reference.normalized()

    def _rule(self, views: int) -> ViewRule:
        frames = min(len(item.frame_to_slot) for item in self.items)
        step = max(self.card.frame_step, min(ViewRule.step, frames // (2 * views)), 1)
        slots = (frames - 1) // step + 1
        return ViewRule.for_clip(frames, step=step, views=min(views, slots))

    def _example(self, scene: PreparedScene, should_stop: Callable[[], bool]) -> Example:
        count = most_frames(self.card, len(scene))
        stride = self.stride or max(1, (len(scene) - 1) // max(count - 1, 1))
        count = most_frames(self.card, min(count, len(range(0, len(scene), stride))))
        window = {"start": 0, "stride": stride, "count": count}
        size = self.card.input_size
        # The store's own hash stands for the pixels, which need not be decoded to know it.
        clip_key = {"layout": cache.LAYOUT, "prepared": scene.sha256, "window": window}
        clip_key["size"] = list(size)
        cell = self.cell
        key = cache.features_key(
            clip_key, self.card, self.hashes, layer=cell.layer, sigma=cell.sigma, seed=cell.seed,
            device=cell.target.device, dtype=cell.target.dtype,
        )  # fmt: skip
        geometry_key = {**clip_key, "map_size": list(self.map_size), "step": self.card.frame_step}
        path = self._store.path("features", key)
        geometry = self._store.path("geometry", {**geometry_key, "backbone": cell.backbone})
        if not (path.is_file() and geometry.is_file()):
            clip = scene.clip(start=0, stride=stride, count=count, size=size)
            if not path.is_file():
                self._extract(clip, clip_key, key, should_stop)
            slots = _array(path, "slot_frames")
            self._keep(scene, clip, slots, {**geometry_key, "backbone": cell.backbone})
        return Example(scene.name, scene.identity, path, geometry, _array(path, "frame_to_slot"))

    def _extract(
        self,
        clip: Clip,
        clip_key: dict[str, Any],
        key: dict[str, Any],
        should_stop: Callable[[], bool],
    ) -> None:
        cell = self.cell
        backbone = registry.load(cell.backbone, target=cell.target)
        latents = None
        if backbone.encoder_hash is not None:
            latents, _ = cache.cached_latents(
                self._store,
                cache.latents_key(clip_key, self.card, self.hashes, cell.target.device),
                lambda: backbone.encode(clip, should_stop=should_stop),
            )
        found = backbone.extract(
            clip, layers=[cell.layer], sigma=cell.sigma, seed=cell.seed, latents=latents,
            should_stop=should_stop,
        )  # fmt: skip
        cache.put_features(self._store, key, found[cell.layer])
        if not self._store.path("features", key).is_file():
            raise ProbeError(
                f"features cannot be kept in {self._store.root}: make room there, or choose "
                "another --features"
            )

    def _keep(
        self,
        scene: PreparedScene,
        clip: Clip,
        slots: Int[np.ndarray, " S"],
        key: dict[str, Any],
    ) -> None:
        """Store the geometry of the slots' frames at the probe's own pixels."""
        shape = (len(clip), *self.map_size, 3)
        # Maps are sampled under the pixels of a clip; these pixels need no colours.
        pixels = replace(clip, frames=np.broadcast_to(np.uint8(0), shape))
        found: Reconstruction = scene.reconstruction(pixels)
        try:
            found = found.at_frames(slots)
        except KeyError as error:
            raise NoReconstruction(str(error.args[0])) from None
        arrays = {
            "depth": found.depth.astype(np.float32),
            "confidence": np.where(found.valid, found.confidence, 0).astype(np.float32),
            "cam_from_world": found.cameras.cam_from_world.astype(np.float32),
            "intrinsics": found.cameras.intrinsics.astype(np.float32),
        }
        self._store.put("geometry", key, arrays)


def collate(examples: Sequence[dict[str, np.ndarray]], device: str) -> tuple[torch.Tensor, Targets]:
    """(B, V, h, w, C) features and normalised targets of several examples."""

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([each[name] for each in examples])).to(device).float()

    depth, confidence = stacked("depth"), stacked("confidence")
    targets = normalize_targets(
        depth,
        stacked("cam_from_world"),
        stacked("intrinsics"),
        (depth > 0) & (confidence > 0),
        weight=confidence,
    )
    return stacked("values"), targets


def _rows(path: Path, name: str, rows: Sequence[int]) -> Float[np.ndarray, "..."]:
    with safe_open(path, framework="numpy") as file:
        part = file.get_slice(name)
        return np.concatenate([part[row : row + 1] for row in rows])


def _array(path: Path, name: str) -> np.ndarray:
    with safe_open(path, framework="numpy") as file:
        return np.asarray(file.get_tensor(name))
