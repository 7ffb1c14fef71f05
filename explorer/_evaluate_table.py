"""Means with intervals, the choice of cells, and paired differences of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metric_names
from explorer.errors import ProbeError
from explorer.metric_names import LOWER_IS_BETTER, METRIC_NAMES
from explorer.metrics.interval import mean_interval, paired_interval

if TYPE_CHECKING:
    from explorer.probe.checkpoint import ProbeCard

METRICS = tuple(METRIC_NAMES)
NOTHING_MOVES = "nothing moves"
CHOSEN_BY = ("validation_point_error", "validation_points", "validation_total")
"""Figures of a probe's card by which the best cell is chosen: the first that all cards have."""

PerClip = Mapping[str, Sequence[float | None]]


def chosen_by(cards: Sequence[ProbeCard]) -> str:
    """The validation figure that all these cards have; lower is better.

    Raises:
        ProbeError: there is no card, or no figure that all of them have.
    """
    for name in CHOSEN_BY:
        if cards and all(_number(card.metrics.get(name)) is not None for card in cards):
            return name
    raise ProbeError(
        f"no cell can be chosen among {len(cards)} probes: their cards need one of "
        f"{', '.join(CHOSEN_BY)}, which training writes from validation clips"
    )


def best_cell(cards: Sequence[ProbeCard]) -> ProbeCard:
    """The cell that did best on the validation clips of its training; test clips have no say.

    Raises:
        ProbeError: there is no card, or no figure that all of them have.
    """
    name = chosen_by(cards)
    return min(cards, key=lambda card: _number(card.metrics.get(name)) or 0.0)


def _number(value: Any) -> float | None:
    found = value.get("mean") if isinstance(value, dict) else value
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        return None
    return float(found)


def summarize(per_clip: PerClip) -> dict[str, dict[str, float | int | None] | None]:
    """Mean and 95 % interval over the clips that have a value; None for a metric without any."""
    return {name: _mean(values) for name, values in per_clip.items()}


def _mean(values: Sequence[float | None]) -> dict[str, float | int | None] | None:
    finite = [value for value in values if value is not None]
    if not finite:
        return None
    if len(finite) == 1:
        return {"mean": finite[0], "low": None, "high": None, "count": 1}
    found = mean_interval(finite)
    return {"mean": found.mean, "low": found.low, "high": found.high, "count": found.count}


def differences(a: str, first: PerClip, b: str, second: PerClip) -> list[dict[str, Any]]:
    """Paired differences a - b of every metric that both have on two or more common clips.

    `gain` is the share of b's error that a takes away, or for metrics where more is better what a
    adds to b; None where b is 0.
    """
    found = []
    for metric in METRICS:
        pairs = [
            (x, y)
            for x, y in zip(first.get(metric, ()), second.get(metric, ()), strict=False)
            if x is not None and y is not None
        ]
        if len(pairs) < 2:
            continue
        left, right = np.array(pairs, dtype=np.float64).T
        interval = paired_interval(left, right)
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        base = float(right.mean())
        found.append(
            {
                "a": a,
                "b": b,
                "metric": metric,
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "clips": interval.count,
                "excludes_zero": interval.excludes_zero,
                "a_is_better": sign * interval.mean > 0,
                "gain": sign * interval.mean / base if base else None,
            }
        )
    return found


def interval_note(many: Sequence[Mapping[str, Any]]) -> str | None:
    """Why some of these metrics have no interval; None where all that have a mean have one.

    Args:
        many: metrics of cells and baselines, as `summarize` gives them.
    """
    known = [(name, value) for metrics in many for name, value in metrics.items() if value]
    lone = {name for name, value in known if value["low"] is None}
    single = [name for name in METRICS if name in lone]
    if not single:
        return None
    named = ", ".join(METRIC_NAMES[name] for name in single)
    where = "" if lone == {name for name, _ in known} else f" for {named} somewhere"
    return (
        f"No intervals and no differences{where}: they are taken over clips, and only one clip "
        "has a value. Give --clips 2 or more."
    )


def render_table(result: dict[str, Any]) -> str:
    """The result for people, as Markdown."""
    heads = ["", *METRIC_NAMES.values()]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for each in [*result["cells"], *result["baselines"]]:
        name = metric_names.NOTHING_MOVES if each["id"] == NOTHING_MOVES else each["id"]
        metrics = each["metrics"]
        lines.append(" | ".join([name, *(_text(metrics.get(metric)) for metric in METRICS)]))
    table = "\n".join(f"| {line} |" for line in lines)
    notes = [
        f"{result['clips']} clips of the split {result['split']!r}. {result['chosen']['note']}",
        *result["notes"],
    ]
    for each in result["differences"]:
        if each["metric"] in ("point_error", "depth_error"):
            gain = "" if each["gain"] is None else f", gain {100 * each['gain']:.1f} %"
            notes.append(
                f"{METRIC_NAMES[each['metric']]}: {each['a']} - {each['b']} = {each['mean']:+.4f} "
                f"[{each['low']:+.4f}, {each['high']:+.4f}]{gain}"
            )
    return "\n".join([table, "", *notes])


def _text(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    if found["low"] is None:
        return f"{found['mean']:.4f}"
    return f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
