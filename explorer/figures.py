"""Plotly figures as plain dictionaries: what is measured elsewhere is only drawn here."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

PAPER = "rgba(0,0,0,0)"  # the page's own background shows through
INK = "#808080"
MARK = "#f08c1e"
COLORS = "Viridis"
MARK_SIGN = "≈ "
TICK_GAP = 0.07  # of the colour bar's length: a line of text


def layer_sigma_map(
    values: Mapping[tuple[int, float], float | None],
    *,
    current: tuple[int, float] | None = None,
    title: str = "Point error of the probes",
    layers: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
    digits: int = 3,
    details: Mapping[tuple[int, float], str] | None = None,
    marked: Collection[tuple[int, float]] = (),
    others: Mapping[str, float] | None = None,
    low_is_better: bool = True,
) -> dict[str, Any]:
    """Heatmap of one number for each (layer, sigma) cell.

    Args:
        values: the number of each cell; a missing, None or NaN cell stays blank.
        current: the cell that is outlined.
        title: names the number.
        layers: rows; by default those that occur.
        sigmas: columns; by default those that occur.
        digits: decimals of the numbers.
        details: what is said about a cell under the pointer besides its number.
        marked: cells whose number has a `MARK_SIGN` before it.
        others: numbers to compare with, by name: the colours span them too, and the colour bar
            names them where they stand.
        low_is_better: whether low or high numbers are bright.

    Returns:
        A Plotly figure as JSON-ready dict. Cell (i, j) carries [layer, sigma] in `customdata`.
    """
    cells = [*values, *([current] if current else [])]
    rows = sorted(set(layers if layers is not None else (layer for layer, _ in cells)))
    columns = sorted(set(sigmas if sigmas is not None else (sigma for _, sigma in cells)))
    numbers = [[_finite(values.get((row, column))) for column in columns] for row in rows]
    said, signed = details or {}, set(marked)
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": [f"{column:g}" for column in columns],
        "y": [str(row) for row in rows],
        "z": numbers,
        "text": [
            [
                "" if n is None else f"{MARK_SIGN * ((row, column) in signed)}{n:.{digits}f}"
                for column, n in zip(columns, line, strict=True)
            ]
            for row, line in zip(rows, numbers, strict=True)
        ],
        "hovertext": [[said.get((row, column), "") for column in columns] for row in rows],
        "texttemplate": "%{text}",
        "customdata": [[[row, column] for column in columns] for row in rows],
        "hovertemplate": "layer %{y}, sigma %{x}: %{text}%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "colorscale": COLORS,
        "reversescale": low_is_better,
        "xgap": 2,
        "ygap": 2,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
    }
    known = [n for line in numbers for n in line if n is not None]
    if known and others:
        trace |= _scale(known, others, digits)
    layout = {
        **_layout(title),
        "xaxis": {"title": {"text": "sigma (fraction of noise)"}, "type": "category"},
        "yaxis": {"title": {"text": "layer"}, "type": "category"},
        "shapes": _outline(current, rows, columns),
    }
    return {"data": [trace], "layout": layout}


def _outline(
    cell: tuple[int, float] | None, rows: Sequence[int], columns: Sequence[float]
) -> list[dict[str, Any]]:
    """A frame around a cell; none where the map does not have it."""
    if cell is None or cell[0] not in rows or cell[1] not in columns:
        return []
    x, y = columns.index(cell[1]), rows.index(cell[0])
    edges = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
    return [{"type": "rect", **edges, "line": {"color": MARK, "width": 3}}]


def _scale(known: Sequence[float], others: Mapping[str, float], digits: int) -> dict[str, Any]:
    """Range and colour bar that take the others in; names that would overlap share a tick."""
    everything = [*known, *others.values()]
    low, high = min(everything), max(everything)
    near = (high - low) * TICK_GAP
    ticks: list[tuple[float, str]] = []
    for number, name in sorted((number, name) for name, number in others.items()):
        if ticks and number - ticks[-1][0] < near:
            ticks[-1] = (ticks[-1][0], f"{ticks[-1][1]}, {name}")
        else:
            ticks.append((number, name))
    found = [*ticks]
    for number in (min(known), max(known)):
        if all(abs(number - taken) >= near for taken, _ in found):
            found.append((number, f"{number:.{digits}f}"))
    found.sort()
    return {
        "zmin": low,
        "zmax": high,
        "colorbar": {
            "thickness": 10,
            "outlinewidth": 0,
            "tickvals": [number for number, _ in found],
            "ticktext": [text for _, text in found],
        },
    }


def to_html(*figures: dict[str, Any], title: str = "Emerge3D") -> str:
    """A page of its own that needs no network, with as many figures in a row as there is room for.

    Raises:
        ValueError: a figure has a property that Plotly does not know.
    """
    import plotly.graph_objects as go
    import plotly.io as pio

    parts = [
        pio.to_html(
            go.Figure(figure),
            config={"displayModeBar": False},
            include_plotlyjs=number == 0,
            full_html=False,
        )
        for number, figure in enumerate(figures)
    ]
    style = "<style>body { display: flex; flex-wrap: wrap; }</style>"
    head = f'<meta charset="utf-8"><title>{escape(title)}</title>{style}'
    return f"<!doctype html>\n<html><head>{head}</head>\n<body>{''.join(parts)}</body></html>\n"


def _layout(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "font": {"size": 14}},
        "margin": {"l": 55, "r": 10, "t": 40, "b": 45},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"color": INK},
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
