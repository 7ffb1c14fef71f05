"""Train a probe on prepared scenes with any backbone.

Order of the scenes, frames of each and learning rate follow from the number of the step alone, so
that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch

from explorer import plugins
from explorer.backbones.base import never, stop_check
from explorer.errors import ProbeError
from explorer.probe.checkpoint import ProbeCard, cell_name, save_probe
from explorer.probe.examples import Examples, collate
from explorer.probe.losses import PUBLISHED_LOSS, LossWeights
from explorer.probe.model import Probe, ProbeConfig
from explorer.probe.step import METRICS, losses_of
from explorer.toy.shards import load_shards, save_shards

STATE = "state"
FLOOR = 1e-6
WARM_UP = 10 / 75  # of all steps, as published
READERS = 4


@dataclass(frozen=True)
class Recipe:
    """How to optimise: AdamW with warm-up and cosine decay.

    Attributes:
        rate: highest learning rate.
        weight_decay: of all parameters.
        clip: longest gradient; None does not cut it.
        loss: what its parts count.
    """

    rate: float
    weight_decay: float
    clip: float | None
    loss: LossWeights = LossWeights()


PROBES: dict[str, tuple[Callable[[int], ProbeConfig], Recipe]] = {
    "compact": (ProbeConfig.compact, Recipe(2e-3, 0.02, 1.0)),
    "vidfm3d": (
        lambda channels: ProbeConfig(in_channels=channels),
        Recipe(1e-4, 0.05, None, PUBLISHED_LOSS),
    ),
}
"""The project's small probe, and the published one."""


@dataclass(frozen=True)
class Options:
    """One training run.

    Attributes:
        probe: one of `PROBES`.
        steps: optimiser steps.
        batch: scenes a step.
        rate: highest learning rate; the recipe's when None.
        seed: of the probe's weights, the order of scenes and their frames.
        save_every: steps between states that a stopped run goes on from.
        validate_every: steps between validations; only at the end when None.
    """

    probe: str = "compact"
    steps: int = 1000
    batch: int = 10
    rate: float | None = None
    seed: int = 0
    save_every: int = 200
    validate_every: int | None = None

    def __post_init__(self) -> None:
        if self.probe not in PROBES:
            raise ProbeError(f"there is no probe {self.probe!r}; there are: {', '.join(PROBES)}")
        if min(self.steps, self.batch, self.save_every, self.validate_every or 1) < 1:
            raise ProbeError("steps, batch and the intervals must be 1 or more")


def rate_at(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: linear warm-up, then a cosine down to `FLOOR`."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return peak * (step + 1) / warm
    decay = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    return FLOOR + (peak - FLOOR) * decay


def scenes_of_step(
    identities: Sequence[str], step: int, *, batch: int, seed: int
) -> list[tuple[int, int]]:
    """(scene, how often it was drawn before) of a step; each scene comes once an epoch."""
    known, found = tuple(identities), []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, len(known))
        found.append((_order(known, seed, epoch)[place], epoch))
    return found


@functools.lru_cache(maxsize=2)
def _order(identities: tuple[str, ...], seed: int, epoch: int) -> list[int]:
    def key(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{epoch}\0{identities[index]}".encode()).digest()

    return sorted(range(len(identities)), key=key)


@torch.no_grad()
def validate(
    probe: Probe, examples: Examples, *, batch: int, device: str, loss: LossWeights | None = None
) -> dict[str, float]:
    """Mean losses over scenes at the frames that they are always evaluated at."""
    probe.eval()
    sums = torch.zeros(len(METRICS), dtype=torch.float64)
    for start in range(0, len(examples), batch):
        items = range(start, min(start + batch, len(examples)))
        features, targets = collate([examples.fixed(index) for index in items], device)
        losses = losses_of(
            probe, features, targets, autocast=device.startswith("cuda"), weights=loss
        )
        sums += losses.double().cpu() * len(items)
    probe.train()
    means = (sums / len(examples)).tolist()
    return {f"validation_{name}": value for name, value in zip(METRICS, means, strict=True)}


def train(
    examples: Examples,
    held_out: Examples,
    out: Path,
    options: Options,
    *,
    data: dict[str, Any],
    device: str = "cpu",
    on_step: Callable[[dict[str, Any]], None] = lambda entry: None,
    should_stop: Callable[[], bool] = never,
) -> ProbeCard:
    """Train a probe and write it with its card.

    Args:
        examples: to train on.
        held_out: to validate on; may be empty.
        out: folder of probes, see `explorer.probe.checkpoint`. The state of an unfinished run lies
            in `training` there.
        options: of the run.
        data: what the card says about the scenes, the split among it.
        device: where the probe is trained.
        on_step: called with {"step", "loss", "rate", "seconds"} of each step and, after a
            validation, with {"step", "validation_total", ...}.
        should_stop: asked before each step.

    Raises:
        ProbeError: an unfinished run with other options is in the way.
        Cancelled: `should_stop` became true; the state was saved.
    """
    run = _Run(examples, out, options, data, device)
    warm = time.perf_counter() - run.seconds
    identities = [item.identity for item in examples.items]

    def reads() -> Iterator[list[tuple[int, int]]]:
        for step in range(run.step, options.steps):
            yield scenes_of_step(identities, step, batch=options.batch, seed=options.seed)

    metrics: dict[str, float] = {}
    for batch in _ahead(examples, reads(), seed=options.seed):
        if should_stop():
            run.save(time.perf_counter() - warm)
            stop_check(should_stop)
        loss, rate = run.advance(batch)
        spent = time.perf_counter() - warm
        on_step({"step": run.step, "loss": loss, "rate": rate, "seconds": round(spent, 2)})
        every = options.validate_every
        if len(held_out) and (run.step == options.steps or (every and run.step % every == 0)):
            metrics = validate(
                run.probe, held_out, batch=options.batch, device=device, loss=run.recipe.loss
            )
            on_step({"step": run.step, **metrics})
        if run.step % options.save_every == 0 and run.step < options.steps:
            run.save(spent)
    return run.finish(time.perf_counter() - warm, metrics, len(held_out))


class _Run:
    """Probe, optimiser and how far they are."""

    def __init__(
        self, examples: Examples, out: Path, options: Options, data: dict[str, Any], device: str
    ) -> None:
        self.out, self.options, self.data, self.device = out, options, data, device
        self.cell, self.hashes = examples.cell, examples.hashes
        config, self.recipe = PROBES[options.probe]
        torch.manual_seed(options.seed)
        self.probe = Probe(config(examples.channels)).to(device).train()
        self.optimizer = torch.optim.AdamW(
            self.probe.parameters(),
            lr=self.recipe.rate,
            betas=(0.9, 0.95),
            weight_decay=self.recipe.weight_decay,
        )
        self.step, self.seconds = 0, 0.0
        name = cell_name(self.cell.layer, self.cell.sigma)
        self.folder = out / "training" / f"{self.cell.backbone}_{name}"
        self.chosen = {k: v for k, v in asdict(options).items() if not k.endswith("_every")}
        self.identity = {
            "options": self.chosen,
            "loss": self.recipe.loss._asdict(),
            "data": data,
            "backbone": self.hashes.weights,
            **plugins.key("backbone", self.cell.backbone),
        }
        if (self.folder / f"{STATE}.json").is_file():
            self._resume()

    def _resume(self) -> None:
        try:
            tensors, card = load_shards(self.folder, STATE)
        except (OSError, ValueError, KeyError) as error:
            raise ProbeError(
                f"the state in {self.folder} is damaged ({error}): remove that folder"
            ) from None
        if card["run"] != self.identity:
            raise ProbeError(
                f"{self.folder} holds an unfinished run with other options, data or weights: go on "
                "with the same ones, or remove that folder"
            )
        names = dict(self.probe.named_parameters())
        state = self.probe.state_dict()
        self.probe.load_state_dict({name: tensors[f"probe/{name}"] for name in state})
        moments = {
            index: {
                "step": torch.tensor(float(card["step"])),
                **{key: tensors[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq")},
            }
            for index, name in enumerate(names)
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.step, self.seconds = int(card["step"]), float(card["seconds"])

    def advance(self, batch: list[dict[str, np.ndarray]]) -> tuple[float, float]:
        """One step; (loss, learning rate)."""
        rate = rate_at(self.step, self.options.steps, self.options.rate or self.recipe.rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        features, targets = collate(batch, self.device)
        losses = losses_of(
            self.probe,
            features,
            targets,
            autocast=self.device.startswith("cuda"),
            weights=self.recipe.loss,
        )
        loss = float(losses[0].detach())
        if not math.isfinite(loss):
            raise ProbeError(
                f"the loss of step {self.step} is {loss}: give a lower --rate, or look at the data"
            )
        self.optimizer.zero_grad(set_to_none=True)
        losses[0].backward()
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.probe.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        return loss, rate

    def save(self, seconds: float) -> None:
        """Write what a stopped run goes on from."""
        tensors = {f"probe/{name}": value for name, value in self.probe.state_dict().items()}
        for name, parameter in self.probe.named_parameters():
            for key in ("exp_avg", "exp_avg_sq"):
                known = self.optimizer.state[parameter]
                tensors[f"{key}/{name}"] = known.get(key, torch.zeros_like(parameter))
        card = {"run": self.identity, "step": self.step, "seconds": round(seconds, 2)}
        save_shards(tensors, self.folder, STATE, card, limit=1 << 30)

    def finish(self, seconds: float, metrics: dict[str, float], held_out: int) -> ProbeCard:
        """Write the probe, and remove the state."""
        card = save_probe(
            self.probe,
            self.out,
            backbone=self.cell.backbone,
            backbone_hash=self.hashes.weights,
            layer=self.cell.layer,
            sigma=self.cell.sigma,
            data={
                **self.data,
                **self.chosen,
                **plugins.provenance("backbone", self.cell.backbone),
            },
            steps=self.step,
            seconds=round(seconds, 2),
            metrics={**metrics, "validation_clips": held_out},
        )
        rmtree(self.folder, ignore_errors=True)
        return card


def _ahead(
    examples: Examples, batches: Iterator[list[tuple[int, int]]], *, seed: int
) -> Iterator[list[dict[str, np.ndarray]]]:
    """Batches, the next one read while the present one is used; threads change nothing in them."""

    def read(scene: int, draw: int) -> dict[str, np.ndarray]:
        return examples.draw(scene, seed=seed, draw=draw)

    with ThreadPoolExecutor(READERS) as pool:
        waiting = None
        for batch in batches:
            coming = [pool.submit(read, *each) for each in batch]
            if waiting is not None:
                yield [future.result() for future in waiting]
            waiting = coming
        if waiting is not None:
            yield [future.result() for future in waiting]
