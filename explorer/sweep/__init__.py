"""Many looks in one go: clips x backbones x layers x noise levels x seeds, as a stream of results.

    request = SweepRequest(("room-orbit-01", "/data/7scenes"), ("toy-wan",), layers="0-7:2")
    for result in sweep(request, Path("sweep.jsonl"), store=Store()):
        ...

The steps are those of a look. A clip is decoded and encoded once for each backbone, a backbone
makes one pass over it for each noise level and seed with all layers, and the reference is asked
once for all backbones that see the clip alike. Each pass is on the disk before the next begins, and
the same request goes on where the file ends. Clips come one after the other with all their
backbones: where two models do not fit into memory together, one sweep each is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer._machine import describe_machine
from explorer.backbones import registry
from explorer.backbones.base import never
from explorer.errors import EmergeError
from explorer.look.cache import versions
from explorer.source import Listed, open_sources
from explorer.sweep.file import Row, SweepFile
from explorer.sweep.ray import connect, spread
from explorer.sweep.request import Axes, SweepRequest, axes_of
from explorer.sweep.summary import summarize
from explorer.sweep.units import Failed, Unit, one_after_the_other

if TYPE_CHECKING:
    from explorer.store import Store

__all__ = ["Failed", "Measured", "SweepRequest", "Swept", "sweep"]


@dataclass(frozen=True)
class Measured:
    """A pass is in the file.

    Attributes:
        rows: its lines, one a layer.
        done: passes in the file by now.
        of: passes that the sweep has.
    """

    rows: list[Row]
    done: int
    of: int


@dataclass(frozen=True)
class Swept:
    """The end: means with intervals over clips, see `explorer.sweep.summary.summarize`."""

    summary: dict[str, Any]


def sweep(
    request: SweepRequest,
    out: Path,
    *,
    store: Store,
    ray: str | None = None,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Measured | Failed | Swept]:
    """Measure every cell on every clip that the file has no line of yet.

    Args:
        request: what to measure.
        out: file of lines; made, or gone on with.
        store: asked for latents, features and slow references before they are computed.
        ray: address of a Ray cluster whose workers take a clip with a backbone each; "local" for
            this machine's processors; None works here, one after the other.
        should_stop: asked within passes.

    Raises:
        EmergeError: the request makes no sense here, or the file is another's or cannot be
            written; before any work.
        Cancelled: `should_stop` became true; the file holds all finished passes.
    """
    begin = time.perf_counter()
    axes = axes_of(request)
    listed, failures = _list(request)
    cluster = None if ray is None else connect(ray)
    file = SweepFile(out, request.options(), {"versions": versions()})
    try:
        yield from failures
        units = list(_units(listed, axes, file))
        of = len(listed) * sum(len(each.passes) for each in axes.values())
        done = of - sum(len(unit.layers) for unit in units)
        if cluster is None:
            opens = {each.name: each.open for each in listed}
            found = one_after_the_other(request, units, opens, store=store, should_stop=should_stop)
        else:
            found = spread(cluster, request, units, store=store, should_stop=should_stop)
        for outcome in found:
            if not isinstance(outcome, Failed):
                file.append(outcome)
                done += 1
                yield Measured(outcome, done, of)
            elif outcome not in failures:  # a clip that cannot be read fails with each backbone
                failures.append(outcome)
                yield outcome
        yield Swept(
            {
                **summarize([each.name for each in listed], axes, file.rows),
                "failed": [vars(failure) for failure in failures],
                "options": request.options(),
                "machine": describe_machine(registry.resolve_device(request.target.device)),
                "versions": versions(),
                "seconds": round(time.perf_counter() - begin, 2),
            }
        )
    finally:
        file.close()


def _list(request: SweepRequest) -> tuple[list[Listed], list[Failed]]:
    found: dict[str, Listed] = {}
    failures = []
    for path in dict.fromkeys(request.sources):
        try:
            each_of = open_sources(path, side=request.side, clips=request.clips)
        except EmergeError as error:
            failures.append(Failed(path, None, str(error)))
            continue
        found |= {each.name: each for each in each_of}
    return list(found.values()), failures


def _units(listed: list[Listed], axes: dict[str, Axes], file: SweepFile) -> Iterator[Unit]:
    """What the file has no lines of, sorted by clip."""
    for each in listed:
        for backbone, of in axes.items():
            missing = {
                (sigma, seed): [
                    layer
                    for layer in of.layers
                    if (each.name, backbone, layer, sigma, seed) not in file.rows
                ]
                for sigma, seed in of.passes
            }
            wanted = {cell: layers for cell, layers in missing.items() if layers}
            if wanted:
                yield Unit(each.name, backbone, wanted)
