"""The units of a sweep on the workers of a Ray cluster (https://docs.ray.io).

Workers need the same version of this project and its plugins, the same paths to clips, weights and
store, and the same kind of device as the machine that writes the file.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import registry
from explorer.backbones.base import stop_check
from explorer.errors import SweepError
from explorer.look.cache import device_type
from explorer.source import open_source
from explorer.store import Store
from explorer.sweep.units import Failed, Unit, outcomes

if TYPE_CHECKING:
    from explorer.sweep.file import Row
    from explorer.sweep.request import SweepRequest

HEARD = 1.0
"""Seconds after which a stop is heard while workers work."""


def connect(address: str) -> Any:
    """The ray module, connected: "auto" finds the cluster that this machine is part of, "local"
    starts one on this machine alone.

    Raises:
        SweepError: ray is not installed, or there is no such cluster.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise SweepError(
            "ray is not installed: pip install ray, here and on the workers"
        ) from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SweepError(f"no Ray cluster at {address!r}: {error}") from error
    return ray


def spread(
    ray: Any,
    request: SweepRequest,
    units: Sequence[Unit],
    *,
    store: Store,
    should_stop: Callable[[], bool],
) -> Iterator[list[Row] | Failed]:
    """The outcomes of all units, those of one together, in the order in which workers finish.

    Raises:
        Cancelled: `should_stop` became true; work in hand is given up.
    """
    # Without a number: a worker sees the one GPU that the cluster gave it, as the first.
    device = device_type(registry.resolve_device(request.target.device))
    request = replace(request, target=replace(request.target, device=device))
    remote = ray.remote(num_gpus=int(device == "cuda"), max_retries=0)(_work)
    waiting = {remote.remote(request, unit, store.root): unit for unit in units}
    try:
        while waiting:
            stop_check(should_stop)
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=HEARD)
            for task in ready:
                unit = waiting.pop(task)
                try:
                    found = ray.get(task)
                except ray.exceptions.RayError as error:  # the worker died
                    found = [Failed(unit.clip, unit.backbone, f"{type(error).__name__}: {error}")]
                yield from found
    finally:
        for task in waiting:
            ray.cancel(task, force=True)


def _work(request: SweepRequest, unit: Unit, root: Path) -> list[list[Row] | Failed]:
    """On a worker."""
    opener = functools.partial(open_source, unit.clip)
    return list(outcomes(request, unit, opener, store=Store(root)))
