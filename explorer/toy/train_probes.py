r"""Train probes of the toy models: every cell on the same clips for the same steps.

    torchrun --nproc_per_node=2 -m explorer.toy.train_probes --vae runs/vae \
        --transformer runs/transformer --out runs/probes --grid full --part 1/2 --steps 1500

`--transformer` takes the runs of several models, each of which says which one it is.

Features are extracted on the fly from a pool of latents with fresh noise at every step; the cells
are divided among the processes. With `--steps` each cell gets exactly so many: cells of one noise
level are trained together, one level after another, and levels for which the time does not suffice
are left to a further run (`--done RUN` skips what that one has finished). Losses:
`explorer.probe.losses`.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from explorer.data.world.spec import WORLD_VERSION
from explorer.data.world.splits import split_seeds
from explorer.probe.losses import CAMERA_WEIGHT
from explorer.toy import parallel
from explorer.toy.cells import (
    Cell,
    best_cells,
    first_grid,
    full_grid,
    others_grid,
    parse_cell,
    part_of,
    read_cards,
)
from explorer.toy.config import FRAMES, HEIGHT, WIDTH
from explorer.toy.equal import check_equal
from explorer.toy.latents import load_vae
from explorer.toy.pool import Renderer
from explorer.toy.probe_models import load_models, model_of
from explorer.toy.probe_pool import Needs, Pool, make_pool
from explorer.toy.schedule import Clock, Every
from explorer.toy.shards import load_shards, save_shards
from explorer.toy.train_group import Group, Metrics, Setting, losses_of_tokens, same_level

RESERVE = 15.0  # seconds for a level's validation and for writing


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--transformer", type=Path, nargs="+", required=True)
    parser.add_argument("--vggt", type=Path, help="run of train_vggt, for cells of toy-vggt")
    parser.add_argument("--jepa", type=Path, help="run of train_jepa, for cells of toy-jepa")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--grid", choices=("first", "full", "others", "best"), default="first")
    parser.add_argument("--of", type=Path, nargs="+", default=[], help="runs for --grid best")
    parser.add_argument("--top", type=int, default=1, help="cells of a backbone in --grid best")
    parser.add_argument("--cells", help="backbone:layer:sigma,... instead of a grid")
    parser.add_argument(
        "--part", default="1/1", help="2/3: the second of three parts of the cells left"
    )
    parser.add_argument(
        "--done", type=Path, nargs="+", default=[], help="runs whose finished cells are left out"
    )
    parser.add_argument("--seconds", type=float, default=500.0, help="in all, the pool included")
    parser.add_argument("--steps", type=int, help="of every cell; else time alone ends the run")
    parser.add_argument("--pool", type=int, default=4096, help="clips a process; all share them")
    parser.add_argument("--held-out", type=int, default=128)
    parser.add_argument("--first-seed", type=int, default=500_000_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument(
        "--camera-weight", type=float, default=CAMERA_WEIGHT, help="1 in the published probe's loss"
    )
    parser.add_argument("--render-batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the probes, clips and noise")
    parser.add_argument("--validate-every", type=int, default=250, help="steps; 0: at the end only")
    parser.add_argument("--save-seconds", type=float, default=60.0, help="between checkpoints")
    parser.add_argument(
        "--resume", type=Path, help="of a run with as many processes, without steps"
    )
    parser.add_argument("--compile", action="store_true", help="compile the probes' steps")
    parser.add_argument("--no-graph", action="store_true")
    return parser


def chosen(arguments: argparse.Namespace) -> list[Cell]:
    """The cells of this run: a part of those that other runs have not finished."""
    if arguments.cells:
        cells = [parse_cell(text) for text in arguments.cells.split(",")]
    elif arguments.grid == "others":
        names = [model_of(run) for run in arguments.transformer]
        names += [f"toy-{kind}" for kind in ("vggt", "jepa") if getattr(arguments, kind)]
        cells = others_grid(names)
    elif arguments.grid == "best":
        cells = best_cells(read_cards(arguments.of), arguments.top)
    else:
        cells = first_grid() if arguments.grid == "first" else full_grid()
    finished = {name for card in read_cards(arguments.done) for name in card["cells"]}
    return part_of([cell for cell in cells if cell.name not in finished], arguments.part)


def data_of(arguments: argparse.Namespace, clips: int) -> dict[str, Any]:
    """Which clips the cells are trained on."""
    return {
        "world": "procedural",
        "world_version": WORLD_VERSION,
        "split": "train",
        "first_seed": arguments.first_seed,
        "clips": clips,
        "frames": FRAMES,
        "size": [HEIGHT, WIDTH],
    }


class Checkpoint:
    """The cells that are finished, or at least begun, of one process."""

    def __init__(
        self, setting: Setting, mine: Sequence[Cell], *, steps: int, seconds: float
    ) -> None:
        self._setting, self._mine = setting, mine
        self._steps, self._seconds = steps, seconds
        self._tensors: dict[str, Tensor] = {}
        self._cells: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []

    def store(self, group: Group, clock: Clock, results: Metrics | None) -> None:
        """Write a group beside those before it; without results it can be resumed, not shipped."""
        tensors = {**self._tensors, **group.tensors()}
        cells = dict(self._cells)
        for cell in group.cells:
            metrics: dict[str, Any] = (results or {}).get(cell.name, {})
            cells[cell.name] = {
                "backbone": cell.backbone,
                "layer": cell.layer,
                "sigma": cell.sigma,
                "config": group.probes[cell.name].config.to_dict(),
                "metrics": {
                    **metrics,
                    "validation_clips": len(self._setting.held_out.latents),
                },
                "curve": group.curves.get(cell.name, []),
            }
        if results is not None:
            self._tensors, self._cells = tensors, cells
        arguments = self._setting.arguments
        card = {
            "processes": self._setting.worker.count,
            "steps": self._steps + clock.step,
            "batch": arguments.batch,
            "rate": arguments.rate,
            "camera_weight": arguments.camera_weight,
            "seed": arguments.seed,
            "seconds": round(self._seconds + clock.elapsed, 1),
            "data": data_of(arguments, len(self._setting.pool.latents)),
            "cells": cells,
            "left": [cell.name for cell in self._mine if cell.name not in cells],
            "finished": results is not None,
            "history": [*self.history, *group.history],
        }
        save_shards(tensors, arguments.out, f"probes{self._setting.worker.rank}", card)
        if results is not None:
            self.history += group.history
            self._seconds += clock.elapsed


def by_time(setting: Setting, mine: list[Cell], began: float) -> None:
    """All cells at once, until the time is used up."""
    arguments, worker = setting.arguments, setting.worker
    earlier: dict[str, Any] = {"steps": 0, "seconds": 0.0, "history": []}
    group = Group(setting, mine)
    if arguments.resume:
        tensors, earlier = load_shards(arguments.resume, f"probes{worker.rank}")
        group.load(tensors)
        group.curves = {name: cell.get("curve", []) for name, cell in earlier["cells"].items()}
    group.prepare(arguments.seed + earlier["steps"])
    parallel.wait(worker)  # the slowest to compile must not eat the others' training time
    reserve = min(45.0, 0.2 * arguments.seconds)  # for the validation
    left = max(arguments.seconds - (time.monotonic() - began) - reserve, 5.0)
    clock = Clock(left, peak=arguments.rate, floor=1e-5, warmup=100, worker=worker)
    checkpoint = Checkpoint(setting, mine, steps=earlier["steps"], seconds=earlier["seconds"])
    checkpoint.history = [*earlier["history"]]
    save = Every(arguments.save_seconds)

    def after() -> None:
        if save.due():
            checkpoint.store(group, clock, None)

    group.train(clock, after=after)
    checkpoint.store(group, clock, None)
    checkpoint.store(group, clock, group.validate(earlier["steps"] + clock.step))


def by_steps(setting: Setting, mine: list[Cell], began: float) -> None:
    """One noise level after another, each for all steps, as many as there is time for."""
    arguments = setting.arguments
    alone = replace(setting.worker, count=1)  # processes need not wait for each other
    checkpoint = Checkpoint(setting, mine, steps=0, seconds=0.0)
    done = 0
    for cells in same_level(mine):
        group = Group(setting, cells)
        group.prepare(arguments.seed)
        clock = Clock(
            math.inf, peak=arguments.rate, floor=1e-5, warmup=100, worker=alone,
            steps=arguments.steps,
        )  # fmt: skip
        left = arguments.seconds - (time.monotonic() - began)
        if not group.train(clock, seconds=left - RESERVE):
            break
        checkpoint.store(group, clock, group.validate(clock.step))
        done += len(cells)
        del group  # with the memory of its recorded steps, before the next ones are recorded
        gc.collect()
    if done < len(mine):
        names = ",".join(cell.name for cell in mine[done:])
        print(f"left for a run with --done {arguments.out}: {names}", flush=True)


def main() -> None:
    """Command line."""
    parser = options()
    arguments = parser.parse_args()
    if arguments.steps and arguments.resume:
        parser.error("cells of fixed --steps are not resumed: give their run to --done")
    cells = chosen(arguments)
    if not cells:
        parser.error("no cell is left to train")

    began = time.monotonic()
    worker = parallel.join()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    share = -(-len(cells) // worker.count)
    mine = cells[worker.rank * share : (worker.rank + 1) * share]
    if not arguments.steps and share * (worker.count - 1) >= len(cells):
        raise ValueError(f"{len(cells)} cells are too few for {worker.count} processes by time")

    vae = load_vae(arguments.vae, worker.device)
    pool, held_out = pools(arguments, vae, Needs.of(cells), worker)
    models = load_models(arguments.transformer, mine, vae, vggt=arguments.vggt, jepa=arguments.jepa)
    del vae
    if worker.leads:
        print(f"pool {len(pool.latents)} in {time.monotonic() - began:.0f} s", flush=True)
    check_done(arguments, len(pool.latents))
    rest: Callable[..., Tensor] = losses_of_tokens
    if arguments.compile:
        rest = torch.compile(rest, dynamic=False)
    setting = Setting(arguments, worker, models, pool, held_out, rest)
    if mine:
        (by_steps if arguments.steps else by_time)(setting, mine, began)
    parallel.wait(worker)
    cards = read_cards([arguments.out])
    if not cards:
        raise ValueError(
            f"{arguments.steps} steps take longer than is left of {arguments.seconds:g} s even for "
            "one noise level: give more --seconds, or fewer --steps"
        )
    for name, cell in [item for card in cards for item in card["cells"].items()]:
        if worker.leads:
            numbers = {k: round(v, 4) for k, v in cell["metrics"].items()}
            print(name, json.dumps(numbers), flush=True)
    parallel.leave(worker)


def pools(
    arguments: argparse.Namespace, vae: Any, needs: Needs, worker: parallel.Worker
) -> tuple[Pool, Pool]:
    """Clips to train on, those of all processes on each, and clips to validate on."""
    on_gpu = worker.device.startswith("cuda")
    renderer = Renderer(worker.device, workers=8 if on_gpu else 0)
    start = arguments.first_seed + worker.rank * arguments.pool
    given = {"batch": arguments.render_batch, "on_gpu": on_gpu, "needs": needs}
    own = make_pool(renderer, vae, split_seeds("train", arguments.pool, start=start), **given)
    pool = own.joined(lambda part: parallel.gather_first(part, worker))
    validation = split_seeds("validation", arguments.held_out, start=1000)
    held_out = make_pool(renderer, vae, validation, **given)
    renderer.close()
    return pool, held_out


def check_done(arguments: argparse.Namespace, clips: int) -> None:
    """Refuse to go on beside runs whose cells would not be equal to those of this one.

    Raises:
        ValueError: with what differs.
    """
    now = {name: getattr(arguments, name) for name in ("steps", "batch", "rate", "camera_weight")}
    check_equal([{**now, "data": data_of(arguments, clips)}, *read_cards(arguments.done)])


if __name__ == "__main__":
    main()
