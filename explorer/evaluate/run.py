"""The work of an evaluation: scenes, one pass for each noise level, every probe, every metric."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explorer._machine import metric_threads
from explorer.backbones import registry
from explorer.backbones.base import Backbone
from explorer.correspondence import correspondence_summary
from explorer.data.world.spec import WorldSpec
from explorer.data.world.splits import SPLITS, split_seeds
from explorer.evaluate.scenes import (
    Scene,
    mean_reconstruction,
    render_scene,
    training_geometry,
)
from explorer.evaluate.table import METRICS, finite
from explorer.features import Features
from explorer.metric_names import GEOMETRY
from explorer.metrics import compare
from explorer.probe.checkpoint import ProbeCard, list_seeds, load_probe
from explorer.probe.predict import predict
from explorer.probe.ridge import Ridge, TokenMaps, token_errors, token_targets
from explorer.probe.ridge_files import find_ridge, load_ridge
from explorer.proxies import attention_reach, proxies_of
from explorer.reconstruction import Reconstruction
from explorer.toy.config import VARIANTS
from explorer.window import most_frames

Progress = Callable[[int, int, float], None]
Values = dict[str, list[float | None]]
STILL = "nothing_moves_px"
OVERSAMPLE = 3  # odd, so that one pixel of the traced geometry is centred where its token is


@dataclass
class Found:
    """Values of every clip.

    Attributes:
        cells: of each cell, of the probe of each seed.
        ridges: of each cell's shipped ridge, at token resolution; empty where there is none.
        proxies: training-free figures of each cell, where they were asked for.
        mean: of the training mean.
        still: of the answer "nothing moves".
        seeds: of the scenes.
        seconds: spent on each step.
    """

    cells: list[list[Values]]
    ridges: list[Values]
    proxies: list[Values]
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
        cards: of the probes; those of further seeds are found beside them.
        device: where everything runs.
        seed: of the noise.
        proxies: also compute the training-free proxies.

    Raises:
        BackboneError: a backbone cannot be loaded.
        ProbeError: a probe does not fit its backbone.
    """

    def __init__(
        self, cards: Sequence[ProbeCard], *, device: str, seed: int, proxies: bool = False
    ) -> None:
        self.cards = cards
        self.device = device
        self.seed = seed
        self.proxies = proxies
        seeds = [[card, *list_seeds(card)] for card in cards]
        self.found = Found(
            [[{name: [] for name in METRICS} for _ in each] for each in seeds],
            [{} for _ in cards],
            [{} for _ in cards],
        )
        names = dict.fromkeys(card.backbone for card in cards)
        self.backbones = {name: registry.load(name, device=device) for name in names}
        self.views = {name: View.of(model) for name, model in self.backbones.items()}
        self.probes = [
            [
                load_probe(each, backbone_hash=self._hash(each.backbone), device=device)
                for each in of_cell
            ]
            for of_cell in seeds
        ]
        self.ridges = [self._ridge(card) for card in cards]
        self._workers = ThreadPoolExecutor(metric_threads(device))

    def _hash(self, backbone: str) -> str:
        return self.backbones[backbone].weights_hash

    def _ridge(self, card: ProbeCard) -> Ridge | None:
        root = card.weights.parent.parent
        found = find_ridge(root, card.backbone, card.layer, card.sigma)
        return None if found is None else load_ridge(found, backbone_hash=self._hash(card.backbone))

    def run(
        self,
        *,
        clips: int,
        mean_scenes: int,
        part: tuple[int, int] = (1, 1),
        on_clip: Progress | None = None,
    ) -> Found:
        """Evaluate on the first scenes of the test split, or on a part of them."""
        begin = time.perf_counter()
        # The constant answer needs no backbone: one view of it is enough.
        view, size = self.maps()[0]
        with self.timed("training_mean"):
            mean = mean_reconstruction(
                training_geometry(mean_scenes, view.slot_frames, size=size, device=self.device)
            )
        with self._workers:
            for number, scenes in enumerate(self.scenes(clips, part), start=1):
                with self.timed("metrics"):
                    for name, values in _judged(mean, scenes[view].exact[size]).items():
                        self.found.mean[name] += values
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
                each.config.size_for(self.backbones[card.backbone].card.token_grid),
            )
            for card, probes in zip(self.cards, self.probes, strict=True)
            for each in probes
        }
        return sorted(pairs, key=str)

    def scenes(self, clips: int, part: tuple[int, int] = (1, 1)) -> Iterator[dict[View, Scene]]:
        """Scenes of the test split as all views see them, without those that begin in the sky.

        Others take their place as long as there are some, but not in a part: parts share no scene.
        """
        number, count = part
        start, end = (round(clips * k / count) for k in (number - 1, number))
        last = SPLITS["test"].count if count == 1 else end
        wanted = end - start
        for position in range(start, last):
            if len(self.found.seeds) == wanted:
                return
            seed = split_seeds("test", 1, start=position)[0]
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
            maps=[
                *(size for each, size in self.maps() if each == view),
                *(oversampled(grid) for grid in self._ridge_grids(view)),
            ],
            device=self.device,
        )

    def _ridge_grids(self, view: View) -> set[tuple[int, int]]:
        """Token grids of the cells of a view that have a ridge."""
        names = {
            card.backbone for card, ridge in zip(self.cards, self.ridges, strict=True) if ridge
        }
        return {self.backbones[name].card.token_grid for name in names if self.views[name] == view}

    def scene(self, scenes: dict[View, Scene]) -> None:
        """All cells on one scene: a pass for each noise level, shared by its layers."""
        latents: dict[tuple[str, View], np.ndarray] = {}
        features: dict[tuple[str, float], dict[int, Features]] = {}
        attended: dict[tuple[str, float, str], dict[int, Features]] = {}
        waiting: list[tuple[Values, Future[Values]]] = []
        for index, card in enumerate(self.cards):
            view, key = self.views[card.backbone], (card.backbone, card.sigma)
            if key not in features:
                features[key] = self.extract(card, scenes[view], view, latents)
            mine, exact = features[key][card.layer], scenes[view].exact
            matches = self._workers.submit(_matches, mine, exact[view.size], view)
            for probe, values in zip(self.probes[index], self.found.cells[index], strict=True):
                with self.timed("probe"):
                    prediction = predict(probe, mine, card=card)
                judged = self._workers.submit(_judged, prediction, exact[prediction.size])
                waiting += [(values, judged), (values, matches)]
            grid = self.backbones[card.backbone].card.token_grid
            ridge = self.ridges[index]
            if ridge is not None:
                target = token_targets(exact[oversampled(grid)], view.slot_frames, grid)
                found = self._workers.submit(_ridge_errors, ridge, mine, target)
                waiting.append((self.found.ridges[index], found))
            if self.proxies:
                found = self._workers.submit(_proxies, mine, exact[view.size], view)
                waiting.append((self.found.proxies[index], found))
                looks = self._attention(card, scenes[view], view, latents, attended)
                waiting += [(self.found.proxies[index], each) for each in looks]
        with self.timed("metrics"):
            for values, each in waiting:
                for name, value in each.result().items():
                    if name != STILL:
                        values.setdefault(name, []).extend(value)
            self.found.still += matches.result()[STILL]

    def _attention(
        self,
        card: ProbeCard,
        scene: Scene,
        view: View,
        latents: dict[tuple[str, View], np.ndarray],
        known: dict[tuple[str, float, str], dict[int, Features]],
    ) -> list[Future[Values]]:
        """How far a cell's attention looks; nothing of a backbone that shows no attention."""
        heads = toy_heads(card.backbone)
        if heads is None or "query" not in self.backbones[card.backbone].card.taps:
            return []
        for tap in ("query", "key"):
            key = (card.backbone, card.sigma, tap)
            if key not in known:
                known[key] = self.extract(card, scene, view, latents, tap=tap)
        query, keys = (
            known[card.backbone, card.sigma, tap][card.layer] for tap in ("query", "key")
        )
        return [self._workers.submit(_reach, query, keys, heads, view)]

    def extract(
        self,
        card: ProbeCard,
        scene: Scene,
        view: View,
        latents: dict[tuple[str, View], np.ndarray],
        *,
        tap: str = "block",
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
        # A backbone may have one tap only, and then does not take the word.
        taken: dict[str, Any] = {} if tap == "block" else {"tap": tap}
        with self.timed("features"):
            return backbone.extract(
                scene.clip,
                layers=sorted(layers),
                sigma=card.sigma,
                seed=self.seed,
                latents=known,
                **taken,
            )

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.found.seconds[name] += time.perf_counter() - start


def _judged(prediction: Reconstruction, exact: Reconstruction) -> Values:
    report = compare(prediction, exact)
    return {name: [finite(getattr(report, name))] for name in GEOMETRY}


def _matches(features: Features, exact: Reconstruction, view: View) -> Values:
    found = correspondence_summary(features, exact, size=view.size)
    names = {"correspondence_error_px": "error_px", "pck": "pck", STILL: "nothing_moves_px"}
    return {name: [finite(found[theirs])] for name, theirs in names.items()}


def _ridge_errors(ridge: Ridge, features: Features, target: TokenMaps) -> Values:
    found = token_errors(ridge.predict(features), target)
    return {name: [finite(value)] for name, value in found.items()}


def _proxies(features: Features, exact: Reconstruction, view: View) -> Values:
    found = proxies_of(features, exact, size=view.size)
    return {name: [finite(value)] for name, value in found.items()}


def _reach(query: Features, key: Features, heads: int, view: View) -> Values:
    found = attention_reach(query.values, key.values, heads=heads, size=view.size)
    return {f"attention_{name}": [value] for name, value in vars(found).items()}


def toy_heads(backbone: str) -> int | None:
    """Attention heads of toy-wan, its variants and their untrained copies; None of others."""
    name = backbone.replace("random", "toy-wan", 1)
    return int(VARIANTS[name].config["num_attention_heads"]) if name in VARIANTS else None


def oversampled(grid: tuple[int, int]) -> tuple[int, int]:
    """The size of maps one pixel of which is centred where a token is."""
    return grid[0] * OVERSAMPLE, grid[1] * OVERSAMPLE
