"""A sweep's summary for people: a layer x sigma table of each figure, and the same as maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from explorer.figures import layer_sigma_map, to_html
from explorer.metric_names import LOWER_IS_BETTER, METRIC_NAMES, NOTHING_MOVES

FIGURES = {
    **METRIC_NAMES,
    "epipolar_inlier_share": "epipolar inliers",
    "cycle_mutual_share": "mutual matches",
    "feature_norm": "feature norm",
}
"""What is shown of a sweep, in this order; the file and the JSON have all figures."""

Values = dict[tuple[int, float], Mapping[str, Any]]


def render_table(summary: Mapping[str, Any]) -> str:
    """Tables for people: layers down, noise levels across."""
    clips = summary["clips"]
    several = clips["count"] > 1
    kind = "means [95 % intervals over clips]" if several else "one clip"
    parts = [f"{clips['count']} clips, {kind}" if several else kind]
    for backbone, figure, values in _tables(summary):
        still = _still(summary, backbone) if figure == "correspondence_error_px" else ""
        parts.append(f"{backbone}: {FIGURES[figure]}{still}\n{_grid(values, figure)}")
    parts.append("\n".join(_facts(summary)))
    return "\n\n".join(parts)


def maps(summary: Mapping[str, Any]) -> str:
    """A page of heatmaps, one for each backbone and figure, that needs no network.

    Backbones are beside each other, and equal colours are equal numbers in the maps of one figure.

    Raises:
        ValueError: nothing has been measured.
    """
    found = []
    span: dict[str, list[float]] = {}
    for _, figure, values in _tables(summary):
        span.setdefault(figure, []).extend(each["mean"] for each in values.values())
    order = list(FIGURES)
    for backbone, figure, values in sorted(_tables(summary), key=lambda each: order.index(each[1])):
        digits = _digits(figure)
        arrow = "↓" if figure in LOWER_IS_BETTER else "" if figure == "feature_norm" else "↑"
        drawn = layer_sigma_map(
            {cell: each["mean"] for cell, each in values.items()},
            title=f"{backbone}: {FIGURES[figure]} {arrow}".strip(),
            layers=[cell["layer"] for cell in summary["cells"] if cell["backbone"] == backbone],
            sigmas=[cell["sigma"] for cell in summary["cells"] if cell["backbone"] == backbone],
            digits=digits,
            details={cell: _interval(each, digits) for cell, each in values.items()},
            low_is_better=figure in LOWER_IS_BETTER,
        )
        trace = drawn["data"][0]
        trace |= {"zmin": min(span[figure]), "zmax": max(span[figure])}
        drawn["layout"] |= {"height": 140 + 34 * len(trace["y"]), "width": 620}
        found.append(drawn)
    if not found:
        raise ValueError("nothing has been measured that could be drawn")
    return to_html(*found, title=f"Layers and noise levels over {summary['clips']['count']} clips")


def _tables(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, Values]]:
    """(backbone, figure, its cells) of every figure that a backbone has anywhere."""
    for backbone in dict.fromkeys(cell["backbone"] for cell in summary["cells"]):
        mine = [cell for cell in summary["cells"] if cell["backbone"] == backbone]
        for figure in FIGURES:
            values = {
                (cell["layer"], cell["sigma"]): cell["metrics"][figure]
                for cell in mine
                if cell["metrics"].get(figure) is not None
            }
            if values:
                yield backbone, figure, values


def _still(summary: Mapping[str, Any], backbone: str) -> str:
    """What answering that nothing moves is off by: the same in every cell, which has no say."""
    known = (
        cell["metrics"].get("nothing_moves_px")
        for cell in summary["cells"]
        if cell["backbone"] == backbone
    )
    found = next((each for each in known if each is not None), None)
    return "" if found is None else f"; {NOTHING_MOVES} {found['mean']:.1f}{_interval(found, 1)}"


def _grid(values: Values, figure: str) -> str:
    layers = sorted({layer for layer, _ in values})
    sigmas = sorted({sigma for _, sigma in values})
    digits = _digits(figure)
    rows = [["layer", *(f"sigma {sigma:g}" for sigma in sigmas)]]
    for layer in layers:
        cells = (values.get((layer, sigma)) for sigma in sigmas)
        rows.append(
            [
                str(layer),
                *(
                    "-" if each is None else f"{each['mean']:.{digits}f}{_interval(each, digits)}"
                    for each in cells
                ),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _interval(found: Mapping[str, Any], digits: int) -> str:
    if found["low"] is None:
        return ""
    return f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def _digits(figure: str) -> int:
    return 1 if figure in ("correspondence_error_px", "feature_norm") else 3


def _facts(summary: Mapping[str, Any]) -> Iterator[str]:
    for backbone, each in summary["passes"].items():
        seconds = ", ".join(f"{name} {value:.1f}" for name, value in each["seconds"].items())
        device = each["peak_device_memory_bytes"]
        gpu = "" if device is None else f", {device / 2**20:.0f} MiB on the GPU"
        memory = f"{each['peak_memory_bytes'] / 2**20:.0f} MiB{gpu}"
        yield f"{backbone}: {each['count']} passes, seconds {seconds}; peak memory {memory}"
    yield from (f"note: {note}" for note in summary["notes"])
    for each in summary["failed"]:
        of = "" if each["backbone"] is None else f" with {each['backbone']}"
        yield f"failed: {each['clip']}{of}: {each['reason']}"
