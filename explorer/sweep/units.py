"""What a sweep measures at a time: one clip with one backbone, here or on a worker of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from explorer.backbones import registry
from explorer.backbones.base import never, stop_check
from explorer.errors import Cancelled, EmergeError
from explorer.look.steps import Geometry, Steps
from explorer.source import Source
from explorer.store import Store
from explorer.sweep.passes import measure
from explorer.sweep.request import SweepRequest

if TYPE_CHECKING:
    from explorer.sweep.file import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unit:
    """Passes of one backbone over one clip.

    Attributes:
        clip: its name.
        backbone: registry id.
        layers: wanted of each pass (sigma, seed).
    """

    clip: str
    backbone: str
    layers: Mapping[tuple[float, int], list[int]]


@dataclass(frozen=True)
class Failed:
    """A clip, or a clip with one backbone, that gives no further lines; the same sweep tries again.

    Attributes:
        clip: its name.
        backbone: None where the clip itself cannot be read.
        reason: for people.
    """

    clip: str
    backbone: str | None
    reason: str


def outcomes(
    request: SweepRequest,
    unit: Unit,
    open_clip: Callable[[], Source],
    *,
    store: Store,
    should_stop: Callable[[], bool] = never,
    known: dict[tuple[Any, ...], Geometry] | None = None,
) -> Iterator[list[Row] | Failed]:
    """The lines of each pass of a unit, or at its end why there are no more.

    Args:
        request: of the sweep.
        unit: what to measure.
        open_clip: gives the clip.
        store: asked before anything is computed.
        should_stop: asked within passes.
        known: geometries of this clip, from units before.

    Raises:
        Cancelled: `should_stop` became true.
    """
    backbone = None
    try:
        source = open_clip()
        info = source.info()
        backbone = unit.backbone
        card = registry.fitting_card(backbone, request.target)
        look = request.look(backbone, source, info, card)
        steps = Steps(look, store, should_stop, source=source, keep=request.keep, known=known)
        steps.decode()
        steps.prepare(sorted({layer for each in unit.layers.values() for layer in each}), 0.0)
        for (sigma, seed), layers in unit.layers.items():
            stop_check(should_stop)
            yield measure(steps, unit.clip, layers, sigma, seed, proxies=request.proxies)
            steps.begin()
    except Cancelled:
        raise
    except EmergeError as error:
        yield Failed(unit.clip, backbone, str(error))
    except Exception as error:  # a night's work does not end with one clip
        log.warning("%s with %s failed", unit.clip, unit.backbone, exc_info=error)
        yield Failed(unit.clip, backbone, f"{type(error).__name__}: {error}")


def one_after_the_other(
    request: SweepRequest,
    units: Iterable[Unit],
    open_clips: Mapping[str, Callable[[], Source]],
    *,
    store: Store,
    should_stop: Callable[[], bool],
) -> Iterator[list[Row] | Failed]:
    """The outcomes of units that are sorted by clip; of one that cannot be read only the first."""
    clip, readable = None, True
    known: dict[tuple[Any, ...], Geometry] = {}
    for unit in units:
        if unit.clip != clip:
            clip, known, readable = unit.clip, {}, True
        if not readable:
            continue
        opener = open_clips[unit.clip]
        for outcome in outcomes(
            request, unit, opener, store=store, should_stop=should_stop, known=known
        ):
            readable = not (isinstance(outcome, Failed) and outcome.backbone is None)
            yield outcome
