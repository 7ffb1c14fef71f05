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
from explorer.look import cache
from explorer.probe.clip_window import frames_seen, window
from explorer.probe.losses import Targets, normalize_targets
from explorer.reconstruction import Reconstruction
from explorer.store import Store

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
        geometry: file with maps and cameras of `frames`.
        frames: (F,) of the scene, in rising order: those that can be drawn.
        slots: (F,) the slot that holds each of them.
    """

    scene: str
    identity: str
    features: Path
    geometry: Path
    frames: Int[np.ndarray, " F"]
    slots: Int[np.ndarray, " F"]

    def read(self, frames: Int[np.ndarray, " V"]) -> dict[str, np.ndarray]:
        """`values` (V, h, w, C) of the slots that hold some of `frames`, and `GEOMETRY` of those
        frames themselves; reads nothing else.
        """
        rows = np.searchsorted(self.frames, frames).tolist()
        found = {"values": _rows(self.features, "values", self.slots[rows].tolist())}
        return found | {name: _rows(self.geometry, name, rows) for name in GEOMETRY}


class Examples:
    """Scenes of one side of a split at one cell.

    Which frames of a scene are drawn follows from the scene and from how many of its frames may be
    drawn, not from the backbone. A backbone sees a clip that reaches over them; of a frame the
    probe gets the features of the slot that holds it and learns the geometry of the frame itself,
    as published. So backbones with a slot for many frames are asked for frames that share one.

    Args:
        scenes: to train on, or to test.
        cell: whose features.
        map_size: (H, W) of the geometry.
        folder: where features and geometry are kept.
        stride: distance between the frames that the backbone sees, see `window`.
        views: frames a draw, see `ViewRule.for_clip`.
        drawn_from: frames of a scene, from its first on, that may be drawn; as many as the backbone
            sees when None.
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
        views: int = ViewRule.views,
        drawn_from: int | None = None,
        on_scene: Callable[[int, int, str], None] = lambda done, total, name: None,
        should_stop: Callable[[], bool] = never,
    ) -> None:
        self.cell, self.map_size, self.stride = cell, map_size, stride
        self.card: BackboneCard = registry.fitting_card(cell.backbone, cell.target)
        self.hashes: Hashes = registry.hashes(cell.backbone, cell.target)
        # Never pruned: what one epoch reads first is what the next one needs first.
        self._store = Store(folder, max_bytes=sys.maxsize)
        self._smallest = min((scene.picture_size for scene in scenes), default=self.card.input_size)
        shortest = min((len(scene) for scene in scenes), default=ViewRule.context)
        seen = frames_seen(self.card, shortest, stride)
        self.rule = ViewRule.for_clip(min(drawn_from or seen, seen), views=views)
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

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.items)

    @property
    def channels(self) -> int:
        """Of the features."""
        with safe_open(self.items[0].features, framework="numpy") as file:
            return int(file.get_slice("values").get_shape()[-1])

    @property
    def enlarged(self) -> str | None:
        """What to say of pictures that are kept smaller than the backbone sees them, if so."""
        wanted, (height, width) = self.card.input_size, self._smallest
        if height >= wanted[0] and width >= wanted[1]:
            return None
        return (
            f"pictures are kept at {height}x{width} and enlarged to {wanted[0]}x{wanted[1]} for "
            f"{self.card.id}: prepare them with a larger --scale, should their source have more"
        )

    def draw(self, index: int, *, seed: int, draw: int) -> dict[str, np.ndarray]:
        """A training example of one scene; see `Example.read`."""
        item = self.items[index]
        frames = training_frames(item.identity, seed=seed, draw=draw, rule=self.rule)
        return item.read(frames)

    def fixed(self, index: int) -> dict[str, np.ndarray]:
        """The frames that one scene is always evaluated at; see `Example.read`."""
        return self.items[index].read(self.evaluation_frames(index))

    def evaluation_frames(self, index: int) -> Int[np.ndarray, " V"]:
        """The frames of one scene that `fixed` and `evaluation` read."""
        return evaluation_frames(self.items[index].identity, rule=self.rule)

    def evaluation(self, index: int) -> tuple[Features, Reconstruction]:
        """Features and normalised geometry of the same frames, for `predict` and `compare`."""
        item, cell = self.items[index], self.cell
        frames = self.evaluation_frames(index)
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

    def _example(self, scene: PreparedScene, should_stop: Callable[[], bool]) -> Example:
        stride, count = window(self.card, len(scene), self.stride)
        size, fit, frames = self.card.input_size, self.card.fit, self.rule.slots
        # The store's own hash stands for the pixels, which need not be decoded to know it.
        clip_key = {
            "layout": cache.LAYOUT,
            "prepared": scene.sha256,
            "window": {"start": 0, "stride": stride, "count": count},
            "size": list(size),
            "fit": fit,
        }
        cell = self.cell
        key = cache.features_key(
            clip_key, self.card, self.hashes, layer=cell.layer, sigma=cell.sigma, seed=cell.seed,
            device=cell.target.device, dtype=cell.target.dtype, compiled=cell.target.compile,
        )  # fmt: skip
        geometry_key = {
            "layout": cache.LAYOUT,
            "prepared": scene.sha256,
            "frames": frames.tolist(),
            "size": list(size),
            "fit": fit,
            "map_size": list(self.map_size),
        }
        path = self._store.path("features", key)
        geometry = self._store.path("geometry", geometry_key)
        if not geometry.is_file():
            self._keep(scene, frames, geometry_key)
        if not path.is_file():
            clip = scene.clip(start=0, stride=stride, count=count, size=size, fit=fit)
            self._extract(clip, clip_key, key, should_stop)
        nearest = np.minimum((frames + stride // 2) // stride, count - 1)
        slots = _array(path, "frame_to_slot")[nearest]
        return Example(scene.name, scene.identity, path, geometry, frames, slots)

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
            raise self._full("features")

    def _keep(
        self, scene: PreparedScene, frames: Int[np.ndarray, " F"], key: dict[str, Any]
    ) -> None:
        """Store the geometry of some frames of a scene at the probe's own pixels."""
        first = scene.clip(start=0, count=1, size=self.card.input_size, fit=self.card.fit)
        # Maps are sampled under the pixels of a clip; these pixels need no colours.
        pixels = replace(
            first,
            frames=np.broadcast_to(np.uint8(0), (len(frames), *self.map_size, 3)),
            timestamps=scene.seconds(frames.tolist()),
            source_frames=frames,
        )
        found: Reconstruction = scene.reconstruction(pixels)
        try:
            found = found.at_frames(np.arange(len(frames)))
        except KeyError as error:
            raise NoReconstruction(str(error.args[0])) from None
        arrays = {
            "depth": found.depth.astype(np.float32),
            "confidence": np.where(found.valid, found.confidence, 0).astype(np.float32),
            "cam_from_world": found.cameras.cam_from_world.astype(np.float32),
            "intrinsics": found.cameras.intrinsics.astype(np.float32),
        }
        if not self._store.put("geometry", key, arrays):
            raise self._full("geometry")

    def _full(self, what: str) -> ProbeError:
        return ProbeError(
            f"{what} cannot be kept in {self._store.root}: make room there, or choose another "
            "--features"
        )


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
