"""`emerge3d train`: a probe for one cell of any backbone, on prepared data."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from explorer.errors import ProbeError

if TYPE_CHECKING:
    from explorer.probe.examples import Cell


@dataclass(frozen=True)
class Train:
    """Train a probe on what `emerge3d prepare` made.

    Features are computed once and kept; a run that was stopped goes on where it was.
    """

    data: Path
    """Folder that emerge3d prepare filled."""
    out: Path
    """Folder of probes; looks read it with --probe."""
    backbone: str = "toy-wan"
    """Which model's features; `emerge3d backbones` lists them."""
    layer: int | None = None
    """0-based block; negative counts from the end. Default: the backbone's own."""
    sigma: float | None = None
    """Fraction of noise in [0, 1]. Default: the backbone's own."""
    probe: Literal["compact", "vidfm3d"] = "compact"
    """The project's small probe, or the published one of 380 million parameters."""
    steps: int = 1000
    """Of the optimiser."""
    batch: int = 10
    """Scenes a step."""
    rate: float | None = None
    """Highest learning rate. Default: 2e-3 compact, 1e-4 vidfm3d."""
    views: int = 4
    """Frames of a scene in a step."""
    stride: int | None = None
    """Every how many frames of a scene one is taken. Default: as the scene's length allows."""
    seed: int = 0
    """Of the probe's weights, the order of scenes, and the noise."""
    save_every: int = 200
    """Steps between states that a stopped run goes on from."""
    validate_every: int | None = None
    """Steps between validations. Default: one at the end."""
    features: Path | None = None
    """Folder where features are kept. Default: in the project's store."""
    weights: Path | None = None
    """Folder of a published model. Default: EMERGE3D_WEIGHTS/ID, or the hub's cache."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the backbone's computation."""
    json: bool = False
    """Print one JSON object on stdout, progress on stderr."""

    def run(self) -> int:
        """Compute features, train, and print the losses on held-out scenes.

        Raises:
            EmergeError: bad input.
        """
        from explorer.backbones import loaded
        from explorer.data.readers.prepared import open_prepared
        from explorer.data.splits import TRAIN
        from explorer.probe.examples import Examples
        from explorer.probe.train import PROBES, Options, train
        from explorer.probe.training_split import keep_split
        from explorer.store import default_root

        options = Options(
            probe=self.probe,
            steps=self.steps,
            batch=self.batch,
            rate=self.rate,
            seed=self.seed,
            save_every=self.save_every,
            validate_every=self.validate_every,
        )
        cell, grid = self._cell()
        store = open_prepared(self.data)
        split = store.split
        test = next((side for side in ("val", "test") if split.sides.get(side)), None)
        sides = {TRAIN: store.side(TRAIN), "test": [] if test is None else store.side(test)}
        if not sides[TRAIN]:
            raise ProbeError(f"no scene of {self.data} is on the side to train on: prepare more")
        size = PROBES[self.probe][0](1).size_for(grid)
        found = {
            side: Examples(
                scenes,
                cell,
                map_size=size,
                folder=self.features or default_root() / "training",
                stride=self.stride,
                views=self.views,
                on_scene=lambda done, total, name: _say(f"features {done}/{total} {name}"),
            )
            for side, scenes in sides.items()
        }
        loaded.unload(cell.backbone)
        examples = found[TRAIN]
        if examples.enlarged:
            _say(examples.enlarged)
        self.out.mkdir(parents=True, exist_ok=True)
        keep_split(self.out, split)
        settings = store.manifest.settings
        card = train(
            examples,
            found["test"],
            self.out,
            options,
            data={
                "split": split.reference,
                "side": TRAIN,
                "validation_side": test,
                "dataset": settings.dataset,
                "reference": settings.reference,
                "clips": len(examples),
                "frames": examples.rule.context,
                "views": examples.rule.views,
                "stride": self.stride,
                "noise_seed": cell.seed,
                "dtype": cell.target.dtype,
            },
            device=cell.target.device,
            on_step=partial(_progress, steps=options.steps),
        )
        for side in found.values():
            for name, reason in side.skipped.items():
                _say(f"left out: {name}: {reason}")
        if self.json:
            print(card.to_json())
        else:
            print(_table(card.metrics, str(card.weights), options.steps, card.seconds))
        return 0

    def _cell(self) -> tuple[Cell, tuple[int, int]]:
        """The cell that is asked for, and the grid of its features."""
        from explorer.backbones import registry
        from explorer.backbones._options import Target
        from explorer.features import resolve_layers
        from explorer.probe.examples import Cell

        device = registry.resolve_device(self.device)
        target = Target(device=device, dtype=self.dtype, weights=self.weights)
        card = registry.fitting_card(self.backbone, target)
        layer, sigma = card.default_cell
        asked = layer if self.layer is None else self.layer
        noise = sigma if self.sigma is None else self.sigma
        layers = resolve_layers([asked], card.layers)
        noise = noise if card.uses_sigma else 0.0
        return Cell(self.backbone, layers[0], noise, self.seed, target), card.token_grid


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress(entry: dict[str, Any], *, steps: int) -> None:
    """One line for a step, or for what a validation after it found."""
    step = f"step {entry['step']}/{steps}"
    if "loss" in entry:
        _say(f"{step} loss {entry['loss']:.4f}, rate {entry['rate']:.1e}, {entry['seconds']:.1f} s")
    else:
        figures = (f"{name} {entry[name]:.4f}" for name in entry if name != "step")
        _say(f"{step} {', '.join(figures).replace('_', ' ')}")


def _table(metrics: dict[str, Any], path: str, steps: int, seconds: float) -> str:
    rows = [
        ("probe", path),
        ("steps", f"{steps} in {seconds:.0f} s"),
        *((name.replace("_", " "), f"{value:.4g}") for name, value in metrics.items()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
