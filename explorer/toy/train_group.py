"""Training the probes of some cells together, on the same batches of clips with the same noise."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from explorer.probe import step
from explorer.probe.losses import Targets
from explorer.probe.model import Probe, ProbeConfig
from explorer.probe.step import METRICS, mixed
from explorer.toy import parallel
from explorer.toy.cells import Cell
from explorer.toy.graphs import graphed
from explorer.toy.probe_pool import GRID, MAPS, Pool, Sources
from explorer.toy.schedule import Clock

MEASURED = 30  # steps after which it is known how long the others take
Metrics = dict[str, dict[str, float]]


def losses_of_tokens(
    probe: Probe, tokens: Tensor, targets: Targets, *, autocast: bool, camera_weight: float
) -> Tensor:
    """`METRICS` of a batch of projected features (B, S, h*w, dim) on the toys' grid."""
    return step.losses_of_tokens(
        probe, tokens, targets, grid=GRID, size=MAPS, autocast=autocast,
        camera_weight=camera_weight,
    )  # fmt: skip


def losses_of(
    probe: Probe,
    features: Tensor,
    targets: Targets,
    *,
    autocast: bool,
    camera_weight: float,
    rest: Callable[..., Tensor] = losses_of_tokens,
) -> Tensor:
    """(total, points, depth, camera) of a batch of features (B, S, h, w, C)."""
    with mixed(features.device.type, enabled=autocast):
        tokens = probe.backbone.input_proj(features.flatten(2, 3))
    return rest(probe, tokens, targets, autocast=autocast, camera_weight=camera_weight)


def training_step(probe: Probe, **options: Any) -> Callable[..., Tensor]:
    """Forward and backward of one probe as a function of features and the targets' tensors."""

    def run(features: Tensor, *targets: Tensor) -> Tensor:
        losses = losses_of(probe, features, Targets(*targets), **options)
        losses[0].backward()
        return losses.detach()

    return run


@contextmanager
def evaluating(probes: dict[str, Probe]) -> Iterator[None]:
    """All probes without gradients."""
    with torch.no_grad():
        for probe in probes.values():
            probe.eval()
        yield
        for probe in probes.values():
            probe.train()


def validate(
    probes: dict[str, Probe], sources: Sources, pool: Pool, *, batch: int, **options: Any
) -> Metrics:
    """Mean losses of each cell on held-out clips, with fixed noise."""
    device = pool.latents.device
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(pool.latents.shape, generator=generator)
    sums = {name: torch.zeros(len(METRICS), device=device) for name in probes}
    with evaluating(probes):
        for start in range(0, len(pool.latents), batch):
            index = torch.arange(start, min(start + batch, len(pool.latents)), device=device)
            features = sources(*pool.inputs(index, noise[index.cpu()].to(device)))
            targets = pool.targets(index)
            for name, probe in probes.items():
                sums[name] += losses_of(probe, features[name], targets, **options) * len(index)
    means = {name: (total / len(pool.latents)).tolist() for name, total in sums.items()}
    names = [f"validation_{metric}" for metric in METRICS]
    return {name: dict(zip(names, values, strict=True)) for name, values in means.items()}


def drawn(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Numbers (batch,) of clips for ever; every clip comes once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def same_level(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in groups of one noise level of one model, which one pass of it serves."""
    groups: dict[tuple[str, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.backbone, cell.sigma), []).append(cell)
    return list(groups.values())


@dataclass(frozen=True)
class Setting:
    """What the groups of one process share.

    Attributes:
        arguments: of `train_probes`.
        worker: this process.
        models: the networks that the cells read.
        pool, held_out: clips to train on and to validate on.
        rest: `losses_of_tokens`, compiled or not: one function for all probes, so that the second
            reuses what was compiled for the first.
    """

    arguments: argparse.Namespace
    worker: parallel.Worker
    models: dict[str, Any]
    pool: Pool
    held_out: Pool
    rest: Callable[..., Tensor]

    @property
    def on_gpu(self) -> bool:
        """Whether steps are recorded and run in bfloat16."""
        return self.worker.device.startswith("cuda")

    def options(self) -> dict[str, Any]:
        """Of `losses_of`."""
        return {"autocast": self.on_gpu, "camera_weight": self.arguments.camera_weight}


@dataclass
class Group:
    """Probes that are trained together.

    Whatever cells are in it, a cell's probe starts from the same weights and sees the same clips
    with the same noise: those of the seed.

    Attributes:
        setting: what it shares with others.
        cells: of the probes.
        history: training losses now and then.
        curves: (step, points, depth, camera) on validation clips, by cell.
    """

    setting: Setting
    cells: list[Cell]
    history: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    probes: dict[str, Probe] = field(init=False)

    def __post_init__(self) -> None:
        device = self.setting.worker.device
        self.sources = Sources(self.cells, self.setting.models, device)
        self.probes = {}
        for cell in self.cells:
            torch.manual_seed(self.setting.arguments.seed)
            probe = Probe(ProbeConfig.compact(self.sources.wide(cell.backbone))).to(device)
            for module in probe.modules():
                if self.setting.on_gpu and isinstance(module, nn.Conv2d):
                    # tokens arrive with channels last
                    module.weight.data = module.weight.data.contiguous(
                        memory_format=torch.channels_last
                    )
            self.probes[cell.name] = probe

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from the weights of a checkpoint."""
        for name, probe in self.probes.items():
            state = {key: tensors[f"{name}/{key}"].float() for key in probe.state_dict()}
            probe.load_state_dict(state)

    def tensors(self) -> dict[str, Tensor]:
        """Weights for a checkpoint, in float16, as they are shipped."""
        return {
            f"{name}/{key}": value.to(torch.float16)
            for name, probe in self.probes.items()
            for key, value in probe.state_dict().items()
        }

    def prepare(self, seed: int) -> None:
        """Record the steps; what is compiled or recorded here costs no training time later."""
        pool, arguments = self.setting.pool, self.setting.arguments
        device = self.setting.worker.device
        graph = self.setting.on_gpu and not arguments.no_graph
        order = drawn(len(pool.latents), arguments.batch, seed)
        generator = torch.Generator(device=device).manual_seed(seed)

        def draw() -> tuple[list[Tensor], Targets]:
            index = next(order).to(device)
            shape = (len(index), *pool.latents.shape[1:])
            noise = torch.randn(shape, generator=generator, device=device)
            return pool.inputs(index, noise), pool.targets(index)

        self._draw = draw
        self._ready: tuple[list[Tensor], Targets] | None = draw()
        inputs, targets = self._ready
        self._read = graphed(self.sources, inputs, enabled=graph)
        features = self._read(*inputs)
        self._steps, self._optimizers = {}, {}
        options = {**self.setting.options(), "rest": self.setting.rest}
        for name, probe in self.probes.items():
            parameters: list[nn.Parameter] = list(probe.parameters())
            run = training_step(probe, **options)
            example = [features[name], *targets]
            self._steps[name] = graphed(run, example, parameters, enabled=graph)
            self._optimizers[name] = torch.optim.AdamW(
                parameters,
                lr=arguments.rate,
                betas=(0.9, 0.95),
                weight_decay=0.02,
                fused=self.setting.on_gpu,
            )

    def train(
        self,
        clock: Clock,
        *,
        seconds: float = math.inf,
        after: Callable[[], None] = lambda: None,
    ) -> bool:
        """Train until the clock's end; False where it turns out that `seconds` are not enough.

        Args:
            clock: of the learning rate.
            seconds: left for this group.
            after: called after every step but the last.
        """
        every = self.setting.arguments.validate_every
        while True:
            recent = self._step(clock.rate())
            more = clock.advance()
            if clock.step == MEASURED and more and math.isfinite(seconds):
                float(next(iter(recent.values()))[0])  # waits for the device
                if clock.elapsed / MEASURED * (self.setting.arguments.steps or 0) > seconds:
                    return False
            if clock.step % 100 == 0 or not more:
                self._note(clock, recent)
            if not more:
                return True
            if every and clock.step % every == 0:
                self.validate(clock.step)
            after()

    def _step(self, rate: float) -> dict[str, Tensor]:
        inputs, targets = self._ready or self._draw()
        self._ready = None
        features = self._read(*inputs)
        recent = {}
        for name, probe in self.probes.items():
            recent[name] = self._steps[name](features[name], *targets)
            for group in self._optimizers[name].param_groups:
                group["lr"] = rate
            torch.nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
            self._optimizers[name].step()
        return recent

    def _note(self, clock: Clock, recent: dict[str, Tensor]) -> None:
        entry = {name: round(float(losses[0]), 4) for name, losses in recent.items()}
        self.history.append({"step": clock.step, "seconds": round(clock.elapsed, 1), **entry})
        if self.setting.worker.leads:
            print(json.dumps(self.history[-1]), flush=True)

    def validate(self, step: int) -> Metrics:
        """Losses on the held-out clips, also put on the curves."""
        batch, options = self.setting.arguments.batch, self.setting.options()
        found = validate(self.probes, self.sources, self.setting.held_out, batch=batch, **options)
        for name, metrics in found.items():
            values = [round(metrics[f"validation_{metric}"], 5) for metric in METRICS[1:]]
            self.curves.setdefault(name, []).append([step, *values])
        return found
