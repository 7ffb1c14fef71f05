"""One slice of training a network: what the training scripts of networks have in common."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explorer.data.world.spec import WORLD_VERSION
from explorer.toy import parallel
from explorer.toy.schedule import Clock, Every
from explorer.toy.shards import Average, save_shards

CURVE_STEPS = 200
Losses = dict[str, Tensor]


def add_options(parser: argparse.ArgumentParser, *, rate: float, first_seed: int) -> None:
    """The options that every slice has."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=500.0, help="in all, the pool included")
    parser.add_argument("--steps", type=int, help="of this slice at most; else time alone ends it")
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument(
        "--decay", type=float, default=1.0,
        help="last share of the slice in which the rate falls; 0 where another slice follows",
    )  # fmt: skip
    parser.add_argument("--first-seed", type=int, default=first_seed)
    parser.add_argument("--held-out", type=int, default=64, help="validation clips")
    parser.add_argument("--render-batch", type=int, default=16)
    parser.add_argument("--save-seconds", type=float, default=60.0, help="between checkpoints")
    parser.add_argument("--resume", type=Path)


Spans = dict[str, list[list[int]]]
"""[first, number] of consecutive positions in the training range, by the size of their clips."""


def spans_of(starts: list[int], counts: list[int]) -> list[list[int]]:
    """[first, number] of consecutive positions in the training range, without empty ones."""
    return [[start, count] for start, count in zip(starts, counts, strict=True) if count]


def distinct_of_sizes(slices: list[dict[str, Any]]) -> dict[str, int] | None:
    """`distinct_clips` of each size; None where a slice does not say."""
    if any("sizes" not in record for record in slices):
        return None
    found = {}
    for size in sorted({size for record in slices for size in record["sizes"]}):
        of_size = [{**record, "spans": record["sizes"].get(size, [])} for record in slices]
        found[size] = distinct_clips(of_size) or 0
    return found


def distinct_clips(slices: list[dict[str, Any]]) -> int | None:
    """How many different clips the slices of a run have seen; None where one does not say.

    A seed is another scene in another version of the world.
    """
    total = 0
    for world in {record.get("world", 1) for record in slices}:
        end = -1
        records = [record for record in slices if record.get("world", 1) == world]
        if any("spans" not in record for record in records):
            return None
        for first, count in sorted(span for record in records for span in record["spans"]):
            total += max(first + count - max(first, end), 0)
            end = max(end, first + count)
    return total


class Training:
    """AdamW, averaged weights, a learning rate by time, the curve and checkpoints.

    Args:
        model: on its device; trained in place.
        name: of its checkpoints.
        arguments: of the options of `add_options`.
        worker: this process.
        began: `time.monotonic()` at the start of the run.
        facts: what the card says besides.
        clip: what is seen of a clip, for the description of the data.
        spans: all processes' clips up to now.
        earlier: card of the run that is resumed.
        reserve: seconds kept for what comes after training.
        warmup: steps.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        arguments: argparse.Namespace,
        worker: parallel.Worker,
        *,
        began: float,
        facts: dict[str, Any],
        clip: str,
        spans: Callable[[], Spans],
        earlier: dict[str, Any] | None = None,
        reserve: float = 15.0,
        warmup: int = 300,
    ) -> None:
        self.model, self.name, self.worker = model, name, worker
        self._out: Path = arguments.out
        self._facts, self._clip, self._spans = facts, clip, spans
        self._first_seed = int(arguments.first_seed)
        before = earlier or {}
        self._history: list[dict[str, Any]] = [*before.get("history", [])]
        self._slices: list[dict[str, Any]] = [*before.get("slices", [])]
        if earlier and not self._slices:  # cards of the first runs had one slice, unnamed
            self._slices = [{"world": 1, **{k: earlier[k] for k in KEPT if k in earlier}}]
        self._done = int(before.get("steps", 0))
        self._samples = 0
        self._spent: float | None = None  # training seconds, once it is over
        self.average = Average(model, 0.999)
        on_gpu = worker.device.startswith("cuda")
        self._on_gpu = on_gpu
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=arguments.rate, betas=(0.9, 0.95), weight_decay=0.01, fused=on_gpu
        )
        self._save = Every(arguments.save_seconds)
        self._pool_seconds = time.monotonic() - began
        left = max(arguments.seconds - self._pool_seconds - reserve, 1.0)
        self.clock = Clock(
            left,
            peak=arguments.rate,
            floor=1e-5,
            warmup=warmup,
            worker=worker,
            steps=arguments.steps,
            decay=arguments.decay,
        )

    def run(
        self,
        step: Callable[[float], tuple[Losses, int, dict[str, Any]]],
        *,
        after: Callable[[float], None] | None = None,
    ) -> None:
        """Train until time or steps are used up, then give the model its averaged weights.

        Args:
            step: of the progress in [0, 1): losses of a batch of this process, of which "loss" is
                trained; its number of samples; what the curve says of it besides.
            after: called with the progress after every step.
        """
        running: Losses = {}
        count, more = 0, True
        while more:
            for group in self._optimizer.param_groups:
                group["lr"] = self.clock.rate()
            progress = self.clock.progress
            losses, samples, notes = step(progress)
            self._optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            parallel.average_gradients(self._parameters, self.worker)
            torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._optimizer.step()
            self.average.update()
            if after is not None:
                after(progress)
            self._samples += samples * self.worker.count
            for name, loss in losses.items():
                running[name] = running.get(name, torch.zeros_like(loss)) + loss.detach()
            count += 1
            more = self.clock.advance()
            if self.clock.step % CURVE_STEPS == 0 or not more:
                means = {name: float(total) / count for name, total in running.items()}
                self._note({**means, **notes})
                running, count = {}, 0
            if more and self.worker.leads and self._save.due():
                self.save({})
        self._spent = self.clock.elapsed
        self.average.copy_to(self.model)

    def card(self, results: dict[str, Any]) -> dict[str, Any]:
        """The run so far, and what was measured after it."""
        sizes = self._spans()
        now = {
            "world": WORLD_VERSION,
            "first_seed": self._first_seed,
            "spans": [span for spans in sizes.values() for span in spans],
            "sizes": sizes,
            "steps": self.clock.step,
            "samples": self._samples,
            "train_seconds": round(self._spent or self.clock.elapsed, 1),
            "pool_seconds": round(self._pool_seconds, 1),
            "gpus": self.worker.count if self._on_gpu else 0,
        }
        every = [*self._slices, now]
        return {
            **self._facts,
            "data": self._data(every),
            "world": WORLD_VERSION,
            "distinct_clips": distinct_clips(every),
            "distinct_clips_of_sizes": distinct_of_sizes(every),
            "steps": self._done + self.clock.step,
            "clips": sum(int(part.get("samples", part.get("clips", 0))) for part in every),
            "train_seconds": round(sum(part["train_seconds"] for part in every), 1),
            "pool_seconds": round(sum(part.get("pool_seconds", 0.0) for part in every), 1),
            "gpus": now["gpus"],
            "slices": every,
            "history": self._history,
            **results,
        }

    def _data(self, slices: list[dict[str, Any]]) -> str:
        of_sizes = distinct_of_sizes(slices) or distinct_of_sizes(slices[-1:]) or {}
        counts = ", ".join(f"{count} clips at {size}" for size, count in of_sizes.items())
        seeds = ", ".join(str(part["first_seed"]) for part in slices if "first_seed" in part)
        return f"procedural world, train seeds from {seeds}, {self._clip}: {counts}"

    def save(self, results: dict[str, Any]) -> None:
        """Write a checkpoint: the averaged weights and the card."""
        save_shards(self.average.values, self._out, self.name, self.card(results))

    def finish(self, results: dict[str, Any]) -> None:
        """The last checkpoint, with what was measured; the leader writes and prints it."""
        if self.worker.leads:
            self.save(results)
            brief = {k: v for k, v in self.card(results).items() if k != "history"}
            print(json.dumps(brief), flush=True)

    def _note(self, values: dict[str, Any]) -> None:
        entry = {"step": self._done + self.clock.step, "seconds": round(self.clock.elapsed, 1)}
        self._history.append({**entry, **values})
        if self.worker.leads:
            print(json.dumps(self._history[-1]), flush=True)


KEPT = ("data", "steps", "clips", "train_seconds", "pool_seconds", "gpus")
