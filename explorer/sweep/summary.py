"""A sweep's table: of each cell the mean and the 95 % interval over clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from explorer import plugins
from explorer.evaluate.table import summarize as means
from explorer.metric_names import METRIC_NAMES

if TYPE_CHECKING:
    from explorer.sweep.file import Key, Row
    from explorer.sweep.request import Axes

PLAIN = ("nothing_moves_px", "feature_norm")
SHOWN = 3  # clips that a note names


def summarize(clips: Sequence[str], axes: dict[str, Axes], rows: dict[Key, Row]) -> dict[str, Any]:
    """The table, ready for JSON.

    A cell's interval is over clips and, where there are several, over seeds of the noise; a clip
    counts for a figure where all seeds have it.

    Args:
        clips: names, in order.
        axes: the cells of each backbone.
        rows: lines, by what they measure.

    Returns:
        `clips`, their number, names and how many are whole; `cells`, of each `metrics` ({"mean",
        "low", "high", "count"} or None), whether it has a `probe`, and medians of the `seconds` of
        its passes; `notes`.
    """
    cells = [
        _cell(name, layer, sigma, clips, each, rows)
        for name, each in axes.items()
        for sigma in each.sigmas
        for layer in each.layers
    ]
    wanted = [
        (clip, name, layer, sigma, seed)
        for clip in clips
        for name, each in axes.items()
        for sigma, seed in each.passes
        for layer in each.layers
    ]
    missing = [key for key in wanted if key not in rows]
    return {
        "clips": {
            "count": len(clips),
            "names": list(clips),
            "whole": len(clips) - len({key[0] for key in missing}),
        },
        "lines": len(wanted) - len(missing),
        "missing": len(missing),
        "cells": cells,
        "passes": _passes(wanted, rows),
        "notes": _notes(axes, cells, rows),
    }


def _cell(
    backbone: str,
    layer: int,
    sigma: float,
    clips: Sequence[str],
    axes: Axes,
    rows: dict[Key, Row],
) -> dict[str, Any]:
    mine = [
        [rows.get((clip, backbone, layer, sigma, seed)) for clip in clips] for seed in axes.seeds
    ]
    figures = [[{} if row is None else _figures(row) for row in of_seed] for of_seed in mine]
    names = dict.fromkeys(name for of_seed in figures for each in of_seed for name in each)
    per_seed = [
        {name: [each.get(name) for each in of_seed] for name in names} for of_seed in figures
    ]
    first = next((row for of_seed in mine for row in of_seed if row), {})
    return {
        "id": f"{backbone}:{layer}:{sigma:g}",
        "backbone": backbone,
        **plugins.provenance("backbone", backbone),
        "layer": layer,
        "sigma": sigma,
        "timestep": first.get("timestep"),
        "official_index": first.get("official_index"),
        "seeds": list(axes.seeds),
        "probe": first.get("probe"),
        "metrics": means(per_seed),
    }


def _figures(row: Row) -> dict[str, float | None]:
    return {name: row[name] for name in (*METRIC_NAMES, *PLAIN)} | (row["proxies"] or {})


def _passes(wanted: Sequence[Key], rows: dict[Key, Row]) -> dict[str, Any]:
    """Number, seconds and largest memory of the passes of each backbone."""
    found: dict[str, dict[tuple[Any, ...], Row]] = {}
    for clip, backbone, layer, sigma, seed in wanted:
        row = rows.get((clip, backbone, layer, sigma, seed))
        if row is not None:
            found.setdefault(backbone, {})[clip, sigma, seed] = row
    return {
        backbone: {
            "count": len(each),
            "seconds": {
                name: round(sum(row["seconds"].get(name, 0.0) for row in each.values()), 2)
                for name in next(iter(each.values()))["seconds"]
            },
            "peak_memory_bytes": max(row["peak_memory_bytes"] for row in each.values()),
            "peak_device_memory_bytes": max(
                (row["peak_device_memory_bytes"] or 0 for row in each.values()), default=0
            )
            or None,
        }
        for backbone, each in found.items()
    }


def _notes(
    axes: dict[str, Axes], cells: Sequence[dict[str, Any]], rows: dict[Key, Row]
) -> list[str]:
    notes = []
    for name, each in axes.items():
        mine = [cell for cell in cells if cell["backbone"] == name]
        read = [f"{cell['layer']}:{cell['sigma']:g}" for cell in mine if cell["probe"]]
        share = f"of {name}, {len(read)} of {len(mine)} cells have a probe"
        which = f", layer:sigma {', '.join(read)}" if 0 < len(read) < len(mine) else ""
        notes.append(share + which)
        if not each.card.uses_sigma:
            notes.append(f"{name} sees no noise: its cells are at sigma 0, with one seed")
    alike: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows.values():
        alike.setdefault((row["backbone"], row["content_hash"]), {})[row["clip"]] = None
    for twins in dict.fromkeys(tuple(each) for each in alike.values() if len(each) > 1):
        notes.append(f"the same video counts {len(twins)} times: {', '.join(twins)}")
    said: dict[str, dict[str, None]] = {}
    for row in rows.values():
        for note in (row["probe_note"], row["reference_note"]):
            if note:
                said.setdefault(note, {})[row["clip"]] = None
    return [*notes, *(f"{note} ({_some(list(clips))})" for note, clips in said.items())]


def _some(clips: Sequence[str]) -> str:
    more = f" and {len(clips) - SHOWN} more clips" if len(clips) > SHOWN else ""
    return ", ".join(clips[:SHOWN]) + more
