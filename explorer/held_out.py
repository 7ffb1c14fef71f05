"""What the shipped evaluation says about each probe, read without torch."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer.assets import assets_root
from explorer.data.world_version import WORLD_VERSION
from explorer.errors import ProbeError
from explorer.evaluate.table import METRICS
from explorer.metric_names import LOWER_IS_BETTER
from explorer.metrics.interval import Interval, paired_interval
from explorer.probe.checkpoint import ProbeCard, list_probes

log = logging.getLogger(__name__)

Identity = tuple[str, int, float, str]
HeldOut = dict[tuple[str, int, float], dict[str, Any]]


@dataclass(frozen=True)
class _Evaluation:
    """What the page reads of a file: metrics and single values of cells, metrics of baselines."""

    cells: dict[Identity, dict[str, Any]]
    per_clip: dict[Identity, dict[str, tuple[float | None, ...]]]
    baselines: dict[str, dict[str, Any]]


def default_path() -> Path:
    """Where the shipped figures are."""
    return assets_root() / "probes" / "evaluation.json"


def held_out(path: Path | None = None) -> HeldOut | None:
    """Test figures by (backbone, layer, sigma), read without torch; None where there is no file.

    Each value has `point_error`, `depth_error`, `auc5`, `auc30`, `correspondence_error_px` and
    `pck`: None or {"mean", "low", "high", "count"}; and `world`, the version of the world whose
    scenes it was measured on, with `present_world`, whether that is the present one. A cell whose
    probe is no longer the one that was evaluated is left out. Sigma is rounded to two decimals.

    Raises:
        ProbeError: the file is not an evaluation.
    """
    found = _read(path or default_path())
    if found is None:
        return None
    named = {_identity(vars(card), card.sha256) for card in list_probes()}
    return {key[:3]: values for key, values in found.cells.items() if key in named}


def metrics_of(card: ProbeCard) -> dict[str, Any]:
    """A probe's figures: those of its card, and over them those of the shipped evaluation of it,
    with the fields of `held_out`.

    A broken evaluation is logged and left out.
    """
    figures = _evaluation().cells
    return {**card.metrics, **figures.get(_identity(vars(card), card.sha256), {})}


def baselines() -> dict[str, dict[str, Any]]:
    """What needs no probe, by name ("training mean per pixel", "nothing moves"): metrics as in
    `held_out`, with its `world` and `present_world`. Empty where there is no evaluation.
    """
    return _evaluation().baselines


def older_world() -> bool:
    """Whether the shipped figures are of scenes that the present world would not draw."""
    return any(not each["present_world"] for each in _evaluation().cells.values())


def differences_from_best(
    cards: Sequence[ProbeCard], metric: str
) -> tuple[ProbeCard, dict[tuple[int, float], Interval]] | None:
    """The best of some probes by its held-out mean, and how the others differ from it.

    Args:
        cards: of the probes.
        metric: key of a metric, e.g. "point_error".

    Returns:
        (best, by (layer, sigma) of each other probe the paired difference from it on the same
        clips, other minus best, with its 95 % interval); None where fewer than two have values for
        the same two or more clips. The best was chosen by the same clips, so its lead is a little
        flattered.
    """
    values = _evaluation().per_clip
    known = []
    for card in cards:
        found = values.get(_identity(vars(card), card.sha256), {}).get(metric) or ()
        numbers = tuple(value for value in found if value is not None)
        if len(numbers) == len(found) > 1:
            known.append((card, numbers))
    sizes = {len(found) for _, found in known}
    if len(known) < 2 or len(sizes) > 1:
        return None
    choose = min if metric in LOWER_IS_BETTER else max
    best, reference = choose(known, key=lambda pair: sum(pair[1]))
    return best, {
        (card.layer, card.sigma): _paired(found, reference)
        for card, found in known
        if card is not best
    }


@functools.lru_cache(maxsize=512)
def _paired(a: tuple[float, ...], b: tuple[float, ...]) -> Interval:
    return paired_interval(a, b)


def _evaluation() -> _Evaluation:
    """What is shipped; a broken file is logged and left out: no reason to show nothing."""
    try:
        return _read(default_path()) or _Evaluation({}, {}, {})
    except ProbeError as error:
        log.warning("%s", error)
        return _Evaluation({}, {}, {})


def _identity(cell: dict[str, Any], probe: str) -> Identity:
    """Which probe it is: a cell, and the sha256 of the weights there."""
    return cell["backbone"], int(cell["layer"]), round(float(cell["sigma"]), 2), probe


def _read(path: Path) -> _Evaluation | None:
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    return _read_figures(path, changed)


@functools.lru_cache(maxsize=4)
def _read_figures(path: Path, changed: int) -> _Evaluation:
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ProbeError(f"{path} cannot be read ({error}): restore or remove it") from error
    try:
        version = int(result.get("world", 1))  # the first evaluations did not say
        scenes = {"world": version, "present_world": version == WORLD_VERSION}

        def metrics(each: dict[str, Any]) -> dict[str, Any]:
            return {name: each["metrics"].get(name) for name in METRICS} | scenes

        return _Evaluation(
            {_identity(cell, cell["probe"]): metrics(cell) for cell in result["cells"]},
            {
                _identity(cell, cell["probe"]): {
                    name: tuple(values) for name, values in cell.get("per_clip", {}).items()
                }
                for cell in result["cells"]
            },
            {each["id"]: metrics(each) for each in result.get("baselines", ())},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ProbeError(f"{path} is not an evaluation ({error!r}): evaluate again") from error
