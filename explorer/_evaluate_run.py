"""The work of an evaluation: scenes, one pass for each noise level, every probe, every metric."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explorer._evaluate_scenes import (
    Scene,
    mean_reconstruction,
    render_scene,
    training_geometry,
)
from explorer._evaluate_table import METRICS
from explorer.backbones import registry
from explorer.backbones.base import Backbone
from explorer.correspondence import correspondence_summary
from explorer.data.world.spec import WorldSpec
from explorer.data.world.splits import split_seeds
from explorer.features import Features
from explorer.metrics import compare
from explorer.probe.checkpoint import ProbeCard, load_probe
from explorer.probe.predict import predict
from explorer.window import most_frames

Progress = Callable[[int, int, float], None]
Values = dict[str, list[float | None]]
GEOMETRY = ("point_error", "depth_error", "auc5", "auc30")


@dataclass
class Found:
    """Values of every clip: of each cell, the training mean, and the answer "nothing moves"."""

    cells: list[Values]
    mean: Values = field(default_factory=lambda: {name: [] for name in GEOMETRY})
    still: list[float | None] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


@dataclass(frozen=True)
class View:
    """How backbones see a scene: two with the same view share its pictures and geometry.

    Attributes:
        size: (height, width) of the pictures.
        frames: how many.
        slots: the frame that stands for each slot, as the backbone itself says.
    """

    size: tuple[int, int]
    frames: int
    slots: tuple[int, ...]

    @classmethod
    def of(cls, backbone: Backbone) -> View:
        frames = most_frames(backbone.card, WorldSpec().frames)
        slots = backbone.slots(frames)[1]
        return cls(backbone.card.input_size, frames, tuple(slots.tolist()))

    @property
    def slot_frames(self) -> np.ndarray:
        return np.array(self.slots)


class Evaluation:
    """Probes and their backbones, loaded once for all scenes; `run` fills `found`.

    Args:
        cards: of the probes.
        device: where everything runs.
        seed: of the noise.

    Raises:
        BackboneError: a backbone cannot be loaded.
        ProbeError: a probe does not fit its backbone.
    """

    def __init__(self, cards: Sequence[ProbeCard], *, device: str, seed: int) -> None:
        self.cards = cards
        self.device = device
        self.seed = seed
        self.found = Found([{name: [] for name in METRICS} for _ in cards])
        names = dict.fromkeys(card.backbone for card in cards)
        self.backbones = {name: registry.load(name, device=device) for name in names}
        self.views = {name: View.of(model) for name, model in self.backbones.items()}
        self.probes = [
            load_probe(
                card, backbone_hash=self.backbones[card.backbone].weights_hash, device=device
            )
            for card in cards
        ]

    def run(self, *, clips: int, mean_scenes: int, on_clip: Progress | None = None) -> Found:
        """Evaluate on the first scenes of the test split."""
        begin = time.perf_counter()
        # The constant answer needs no backbone: one view of it is enough.
        view, size = self.maps()[0]
        with self.timed("training_mean"):
            mean = mean_reconstruction(
                training_geometry(mean_scenes, view.slot_frames, size=size, device=self.device)
            )
        for number, scenes in enumerate(self.scenes(clips), start=1):
            with self.timed("metrics"):
                report = compare(mean, scenes[view].exact[size])
                for name in GEOMETRY:
                    self.found.mean[name].append(_finite(getattr(report, name)))
            self.scene(scenes)
            if on_clip is not None:
                on_clip(number, clips, time.perf_counter() - begin)
        self.found.seconds = {name: round(spent, 2) for name, spent in self.found.seconds.items()}
        return self.found

    def maps(self) -> list[tuple[View, tuple[int, int]]]:
        """Every view, with the sizes of the maps that its probes predict."""
        pairs = {
            (
                self.views[card.backbone],
                probe.config.size_for(self.backbones[card.backbone].card.token_grid),
            )
            for card, probe in zip(self.cards, self.probes, strict=True)
        }
        return sorted(pairs, key=str)

    def scenes(self, clips: int) -> Iterator[dict[View, Scene]]:
        """Scenes of the test split as all views see them, without those that begin in the sky."""
        position = 0
        while len(self.found.seeds) < clips:
            seed = split_seeds("test", 1, start=position)[0]
            position += 1
            with self.timed("render"):
                seen = {view: self.rendered(seed, view) for view in set(self.views.values())}
            whole = {view: scene for view, scene in seen.items() if scene is not None}
            if len(whole) == len(seen):
                self.found.seeds.append(seed)
                yield whole

    def rendered(self, seed: int, view: View) -> Scene | None:
        """One scene in one view."""
        return render_scene(
            seed,
            view.frames,
            view.slot_frames,
            size=view.size,
            maps=[size for each, size in self.maps() if each == view],
            device=self.device,
        )

    def scene(self, scenes: dict[View, Scene]) -> None:
        """All cells on one scene: a pass for each noise level, shared by its layers."""
        latents: dict[tuple[str, View], np.ndarray] = {}
        features: dict[tuple[str, float], dict[int, Features]] = {}
        still: float | None = None
        for card, probe, values in zip(self.cards, self.probes, self.found.cells, strict=True):
            view, key = self.views[card.backbone], (card.backbone, card.sigma)
            if key not in features:
                features[key] = self.extract(card, scenes[view], view, latents)
            mine, exact = features[key][card.layer], scenes[view].exact
            with self.timed("probe"):
                prediction = predict(probe, mine, card=card)
            with self.timed("metrics"):
                report = compare(prediction, exact[prediction.size])
                matches = correspondence_summary(mine, exact[view.size], size=view.size)
            still = matches["nothing_moves_px"]
            measured = {name: getattr(report, name) for name in GEOMETRY}
            measured |= {"correspondence_error_px": matches["error_px"], "pck": matches["pck"]}
            for name, value in measured.items():
                values[name].append(_finite(value))
        self.found.still.append(_finite(still))

    def extract(
        self,
        card: ProbeCard,
        scene: Scene,
        view: View,
        latents: dict[tuple[str, View], np.ndarray],
    ) -> dict[int, Features]:
        """All wanted layers at one noise level; backbones with the same VAE share its latents."""
        backbone = self.backbones[card.backbone]
        known = None
        if backbone.encoder_hash is not None:
            key = (backbone.encoder_hash, view)
            with self.timed("latents"):
                if key not in latents:
                    latents[key] = backbone.encode(scene.clip)
            known = latents[key]
        cell = (card.backbone, card.sigma)
        layers = {each.layer for each in self.cards if (each.backbone, each.sigma) == cell}
        with self.timed("features"):
            return backbone.extract(
                scene.clip,
                layers=sorted(layers),
                sigma=card.sigma,
                seed=self.seed,
                latents=known,
            )

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.found.seconds[name] += time.perf_counter() - start


def _finite(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
