"""What the shipped evaluation says about each probe, read without torch."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import Any

from explorer._evaluate_table import METRICS
from explorer.assets import assets_root
from explorer.data.world_version import WORLD_VERSION
from explorer.errors import ProbeError
from explorer.probe.checkpoint import ProbeCard, list_probes

log = logging.getLogger(__name__)

Identity = tuple[str, int, float, str]
HeldOut = dict[tuple[str, int, float], dict[str, Any]]


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
    figures = _figures(path or default_path())
    if figures is None:
        return None
    named = {_identity(vars(card), card.sha256) for card in list_probes()}
    return {key[:3]: values for key, values in figures.items() if key in named}


def metrics_of(card: ProbeCard) -> dict[str, Any]:
    """A probe's figures: those of its card, and over them those of the shipped evaluation of it,
    with the fields of `held_out`.

    A broken evaluation is logged and left out: it is no reason to show nothing.
    """
    try:
        figures = _figures(default_path()) or {}
    except ProbeError as error:
        log.warning("%s", error)
        figures = {}
    return {**card.metrics, **figures.get(_identity(vars(card), card.sha256), {})}


def _identity(cell: dict[str, Any], probe: str) -> Identity:
    """Which probe it is: a cell, and the sha256 of the weights there."""
    return cell["backbone"], int(cell["layer"]), round(float(cell["sigma"]), 2), probe


def _figures(path: Path) -> dict[Identity, dict[str, Any]] | None:
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    return _read_figures(path, changed)


@functools.lru_cache(maxsize=4)
def _read_figures(path: Path, changed: int) -> dict[Identity, dict[str, Any]]:
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ProbeError(f"{path} cannot be read ({error}): restore or remove it") from error
    try:
        version = int(result.get("world", 1))  # the first evaluations did not say
        scenes = {"world": version, "present_world": version == WORLD_VERSION}
        return {
            _identity(cell, cell["probe"]): {n: cell["metrics"].get(n) for n in METRICS} | scenes
            for cell in result["cells"]
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ProbeError(f"{path} is not an evaluation ({error!r}): evaluate again") from error
