"""Plotly figures as plain dictionaries: what is measured elsewhere is only drawn here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

PAPER = "rgba(0,0,0,0)"  # the page's own background shows through
INK = "#808080"
MARK = "#f08c1e"
COLORS = "Viridis_r"  # bright where the error is low


def layer_sigma_map(
    values: Mapping[tuple[int, float], float | None],
    *,
    current: tuple[int, float] | None = None,
    title: str = "Point error of the probes",
    layers: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Heatmap of one number for each (layer, sigma) cell.

    Args:
        values: the number of each cell; a missing, None or NaN cell stays blank.
        current: the cell that is outlined.
        title: names the number.
        layers: rows; by default those that occur.
        sigmas: columns; by default those that occur.

    Returns:
        A Plotly figure as JSON-ready dict. Cell (i, j) carries [layer, sigma] in `customdata`.
    """
    cells = [*values, *([current] if current else [])]
    rows = sorted(set(layers if layers is not None else (layer for layer, _ in cells)))
    columns = sorted(set(sigmas if sigmas is not None else (sigma for _, sigma in cells)))
    numbers = [[_finite(values.get((row, column))) for column in columns] for row in rows]
    trace = {
        "type": "heatmap",
        "x": [f"{column:g}" for column in columns],
        "y": [str(row) for row in rows],
        "z": numbers,
        "text": [["" if n is None else f"{n:.3f}" for n in row] for row in numbers],
        "texttemplate": "%{text}",
        "customdata": [[[row, column] for column in columns] for row in rows],
        "hovertemplate": "layer %{y}, sigma %{x}: %{z:.4f}<extra></extra>",
        "hoverongaps": False,
        "colorscale": COLORS,
        "xgap": 2,
        "ygap": 2,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
    }
    shapes = []
    if current is not None and current[0] in rows and current[1] in columns:
        x, y = columns.index(current[1]), rows.index(current[0])
        edges = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
        shapes.append({"type": "rect", **edges, "line": {"color": MARK, "width": 3}})
    layout = {
        **_layout(title),
        "xaxis": {"title": {"text": "sigma (fraction of noise)"}, "type": "category"},
        "yaxis": {"title": {"text": "layer"}, "type": "category"},
        "shapes": shapes,
    }
    return {"data": [trace], "layout": layout}


def to_html(figure: dict[str, Any]) -> str:
    """A page of its own that needs no network.

    Raises:
        ValueError: the figure has a property that Plotly does not know.
    """
    import plotly.graph_objects as go
    import plotly.io as pio

    return str(pio.to_html(go.Figure(figure), include_plotlyjs=True, full_html=True))


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
