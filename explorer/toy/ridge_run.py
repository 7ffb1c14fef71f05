"""The work of a ridge experiment: scenes of each split, features of all cells, fits and errors."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from explorer.backbones import registry
from explorer.data.world.splits import split_seeds
from explorer.errors import ProbeError
from explorer.evaluate.run import View, oversampled
from explorer.evaluate.scenes import Scene, render_scene
from explorer.features import Features, resolve_layers
from explorer.probe.checkpoint import find_probe, load_probe
from explorer.probe.model import Probe
from explorer.probe.predict import predict
from explorer.probe.ridge import (
    Ridge,
    RidgeData,
    TokenMaps,
    fit_ridge,
    token_errors,
    token_targets,
)
from explorer.proxies import proxies_of
from explorer.reconstruction import Reconstruction
from explorer.toy.cells import Cell, parse_cell

ERRORS = ("point_error", "depth_error")
Values = dict[str, list[float | None]]
Note = Callable[[str], None]


@dataclass
class Judged:
    """What was measured on the test clips, one value for each clip.

    Attributes:
        ridges: errors of each cell's ridge.
        probes: errors of its shipped probe at the same tokens, of cells that have one.
        proxies: training-free figures of each cell, where they were asked for.
        mean: errors of the training mean.
        seeds: of the scenes.
    """

    ridges: list[Values]
    probes: list[Values]
    proxies: list[Values]
    mean: Values = field(default_factory=lambda: {name: [] for name in ERRORS})
    seeds: list[int] = field(default_factory=list)


class TokenMean:
    """The mean geometry of training clips, token by token: the best answer without looking."""

    def __init__(self) -> None:
        self._sums: list[np.ndarray] = []

    def add(self, target: TokenMaps) -> None:
        """Count one more clip."""
        known = target.valid.astype(np.float64)
        parts = [known, target.depth * known, target.points * known[..., None]]
        old = self._sums or [np.zeros(part.shape) for part in parts]
        self._sums = [total + part for total, part in zip(old, parts, strict=True)]

    def errors(self, target: TokenMaps) -> dict[str, float]:
        """Errors on one clip, over the tokens that any training clip has geometry at."""
        known, depth, points = self._sums
        seen = np.maximum(known, 1.0)
        answer = TokenMaps(target.frames, depth / seen, points / seen[..., None], known > 0)
        both = TokenMaps(target.frames, target.depth, target.points, target.valid & answer.valid)
        return token_errors(answer, both)


class RidgeRun:
    """Cells and their backbones, loaded once for all scenes.

    Args:
        cells: to fit and judge.
        device: where backbones, probes and the renderer run; fits are numpy.
        position: whether every cell reads its tokens' positions too.
        note: told about progress.

    Raises:
        BackboneError: a backbone cannot be loaded.
    """

    def __init__(
        self, cells: Sequence[Cell], *, device: str, position: bool, note: Note = lambda _: None
    ) -> None:
        self.cells, self.device, self.note = cells, device, note
        self.position = position
        self.seconds: dict[str, float] = defaultdict(float)
        self.mean = TokenMean()
        self.backbones = {
            name: registry.load(name, device=device)
            for name in dict.fromkeys(cell.backbone for cell in cells)
        }
        self.views = {name: View.of(model) for name, model in self.backbones.items()}

    def fit(self, *, train: int, validation: int) -> list[Ridge]:
        """One ridge for each cell, on the first scenes of the two splits.

        Each scene has noise of its own, named by its seed: with the same noise everywhere a fit
        could learn it by heart.
        """
        data = {name: [self._empty(cell) for cell in self.cells] for name in ("train", "held_out")}
        for split, count, sums in (
            ("train", train, data["train"]),
            ("validation", validation, data["held_out"]),
        ):
            for seed, scenes in self.scenes(split, count):
                found = self.features(scenes, seed=seed)
                with self.timed("fit"):
                    for cell, into in zip(self.cells, sums, strict=True):
                        into.add(found[cell], self.target(cell, scenes))
                    if split == "train":
                        self.mean.add(self.target(self.cells[0], scenes))
        with self.timed("fit"):
            return [fit_ridge(*pair) for pair in zip(data["train"], data["held_out"], strict=True)]

    def judge(
        self, ridges: Sequence[Ridge], *, clips: int, seed: int, probes: bool, proxies: bool
    ) -> Judged:
        """Errors on the first scenes of the test split, the same as those of `explorer.evaluate`.

        Args:
            ridges: of the cells, in their order.
            clips: number of scenes.
            seed: of the noise, the same for every clip.
            probes: also judge the cells' shipped probes, at the same tokens.
            proxies: also compute the training-free proxies; needs OpenCV.

        Raises:
            ProbeError: a probe does not fit its backbone.
        """
        judged = Judged([{} for _ in ridges], [{} for _ in ridges], [{} for _ in ridges])
        shipped = [self._probe(cell) if probes else None for cell in self.cells]
        for test_seed, scenes in self.scenes("test", clips):
            judged.seeds.append(test_seed)
            found = self.features(scenes, seed=seed)
            for index, (cell, ridge) in enumerate(zip(self.cells, ridges, strict=True)):
                features, target = found[cell], self.target(cell, scenes)
                with self.timed("metrics"):
                    _append(judged.ridges[index], token_errors(ridge.predict(features), target))
                probe = shipped[index]
                if probe is not None:
                    with self.timed("probe"):
                        answer = predict(probe, features).resized(*features.grid)
                        _append(judged.probes[index], token_errors(answer, target))
                if proxies:
                    with self.timed("proxies"):
                        view = self.views[cell.backbone]
                        exact = scenes[view].exact[view.size]
                        _append(judged.proxies[index], _proxies(features, exact, view))
            _append(judged.mean, self.mean.errors(self.target(self.cells[0], scenes)))
        return judged

    def scenes(self, split: str, count: int) -> Iterator[tuple[int, dict[View, Scene]]]:
        """Scenes of a split as all views see them, without those that begin in the sky."""
        position = done = 0
        while done < count:
            seed = split_seeds(split, 1, start=position)[0]
            position += 1
            with self.timed("render"):
                seen = {view: self._rendered(seed, view) for view in set(self.views.values())}
            whole = {view: scene for view, scene in seen.items() if scene is not None}
            if len(whole) == len(seen):
                yield seed, whole
                done += 1
                self.note(f"{split} {done}/{count}")

    def target(self, cell: Cell, scenes: dict[View, Scene]) -> TokenMaps:
        """What a cell's tokens should say about a scene."""
        view, grid = self.views[cell.backbone], self.backbones[cell.backbone].card.token_grid
        return token_targets(scenes[view].exact[oversampled(grid)], view.slot_frames, grid)

    def features(self, scenes: dict[View, Scene], *, seed: int) -> dict[Cell, Features]:
        """Features of all cells: one pass of each backbone for each noise level."""
        latents: dict[tuple[str, View], np.ndarray] = {}
        found: dict[Cell, Features] = {}
        for name, backbone in self.backbones.items():
            view = self.views[name]
            mine = [cell for cell in self.cells if cell.backbone == name]
            known = None
            if backbone.encoder_hash is not None:
                key = (backbone.encoder_hash, view)
                with self.timed("latents"):
                    if key not in latents:
                        latents[key] = backbone.encode(scenes[view].clip)
                known = latents[key]
            for sigma in sorted({cell.sigma for cell in mine}):
                layers = sorted({cell.layer for cell in mine if cell.sigma == sigma})
                with self.timed("features"):
                    values = backbone.extract(
                        scenes[view].clip, layers=layers, sigma=sigma, seed=seed, latents=known
                    )
                found |= {Cell(name, layer, sigma): each for layer, each in values.items()}
        return found

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def _empty(self, cell: Cell) -> RidgeData:
        card = self.backbones[cell.backbone].card
        return RidgeData(position_frames=card.max_frames if self.position else None)

    def _rendered(self, seed: int, view: View) -> Scene | None:
        grids = {
            model.card.token_grid
            for name, model in self.backbones.items()
            if self.views[name] == view
        }
        return render_scene(
            seed,
            view.frames,
            view.slot_frames,
            size=view.size,
            maps=[oversampled(grid) for grid in grids],
            device=self.device,
        )

    def _probe(self, cell: Cell) -> Probe | None:
        card = find_probe(cell.backbone, cell.layer, cell.sigma)
        if card is None:
            return None
        hashed = self.backbones[cell.backbone].weights_hash
        return load_probe(card, backbone_hash=hashed, device=self.device)


def parse_cells(text: str) -> list[Cell]:
    """Cells written as "backbone:layer:sigma,...", each once.

    Raises:
        ProbeError: a cell is written otherwise, or its sigma is outside [0, 1].
        BackboneError: there is no such backbone, or it has no such layer.
    """
    cells = []
    for word in text.split(","):
        try:
            cell = parse_cell(word.strip())
        except ValueError:
            raise ProbeError(f"cell {word!r}: write backbone:layer:sigma") from None
        card = registry.card(cell.backbone)
        (layer,) = resolve_layers([cell.layer], card.layers)
        if not 0.0 <= cell.sigma <= 1.0:
            raise ProbeError(f"cell {word!r}: sigma is the fraction of noise, 0 to 1")
        # A backbone that sees no noise gives one answer, whatever sigma is asked for.
        cells.append(Cell(cell.backbone, layer, cell.sigma if card.uses_sigma else 0.0))
    return list(dict.fromkeys(cells))


def _proxies(features: Features, exact: Reconstruction, view: View) -> dict[str, float | None]:
    found = proxies_of(features, exact, size=view.size)
    return {name: None if value is None else float(value) for name, value in found.items()}


def _append(values: Values, found: Mapping[str, float | None]) -> None:
    for name, value in found.items():
        values.setdefault(name, []).append(value)
