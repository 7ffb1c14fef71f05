"""Means with intervals, the choice of cells, and paired differences of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metric_names
from explorer._typing import Float
from explorer.errors import ProbeError
from explorer.metric_names import LOWER_IS_BETTER, METRIC_NAMES
from explorer.metrics.interval import bootstrap_means, range_of

if TYPE_CHECKING:
    from explorer.probe.checkpoint import ProbeCard

METRICS = tuple(METRIC_NAMES)
NOTHING_MOVES = "nothing moves"
CHOSEN_BY = ("validation_point_error", "validation_points", "validation_total")
"""Figures of a probe's card by which the best cell is chosen: the first that all cards have."""

SHOWN = ("point_error", "depth_error", "auc30")
RIDGE_METRICS = ("point_error", "depth_error")

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


def finite(value: Any) -> float | None:
    """The value for JSON: None where it is no number."""
    return None if value is None or not math.isfinite(value) else float(value)


def summarize(
    per_clip: PerClip | Sequence[PerClip],
) -> dict[str, dict[str, float | int | None] | None]:
    """Mean and 95 % interval over the clips that have a value; None for a metric without any.

    Args:
        per_clip: values of the clips; or those of each of several seeds, over which the interval
            is taken too.
    """
    many = _seeds(per_clip)
    return {name: _mean(_matrix(many, name)) for name in many[0]}


def _seeds(per_clip: PerClip | Sequence[PerClip]) -> Sequence[PerClip]:
    return [per_clip] if isinstance(per_clip, Mapping) else per_clip


def _matrix(many: Sequence[PerClip], metric: str) -> Float[np.ndarray, "K N"]:
    """(seeds, clips); not a number where there is no value."""
    rows = [list(each.get(metric, ())) for each in many]
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1)


def _mean(values: Float[np.ndarray, "K N"]) -> dict[str, float | int | None] | None:
    known = values[:, np.isfinite(values).all(axis=0)]
    count = known.shape[1]
    if not count:
        return None
    if count == 1:
        return {"mean": float(known.mean()), "low": None, "high": None, "count": 1}
    low, high = range_of(bootstrap_means([known])[0])
    return {"mean": float(known.mean()), "low": low, "high": high, "count": count}


def differences(
    a: str, first: PerClip | Sequence[PerClip], b: str, second: PerClip | Sequence[PerClip]
) -> list[dict[str, Any]]:
    """Paired differences a - b of every metric that both have on two or more common clips.

    `gain` is the share of b's error that a takes away, or for metrics where more is better what a
    adds to b; `ratio` is a over b with its interval. Both are None where b is 0. Of each side one
    value a clip may be given, or those of several seeds.
    """
    found = []
    ours, theirs = _seeds(first), _seeds(second)
    for metric in METRICS:
        left, right = _matrix(ours, metric), _matrix(theirs, metric)
        count = min(left.shape[1], right.shape[1])
        left, right = left[:, :count], right[:, :count]
        known = np.isfinite(left).all(axis=0) & np.isfinite(right).all(axis=0)
        if int(known.sum()) < 2:
            continue
        left, right = left[:, known], right[:, known]
        boot = bootstrap_means([left, right])
        low, high = range_of(boot[0] - boot[1])
        mean, base = float(left.mean() - right.mean()), float(right.mean())
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        found.append(
            {
                "a": a,
                "b": b,
                "metric": metric,
                "mean": mean,
                "low": low,
                "high": high,
                "clips": int(known.sum()),
                "excludes_zero": low > 0 or high < 0,
                "a_is_better": sign * mean > 0,
                "gain": sign * mean / base if base else None,
                "ratio": _ratio(float(left.mean()), base, boot),
            }
        )
    return found


def _ratio(
    ours: float, theirs: float, boot: Float[np.ndarray, "2 R"]
) -> dict[str, float | None] | None:
    if not theirs:
        return None
    if (boot[1] == 0).any():  # where hardly any clip has a value above 0
        return {"mean": ours / theirs, "low": None, "high": None}
    low, high = range_of(boot[0] / boot[1])
    return {"mean": ours / theirs, "low": low, "high": high}


def interval_note(
    many: Sequence[Mapping[str, Any]], *, advice: str = "Give --clips 2 or more."
) -> str | None:
    """Why some of these metrics have no interval; None where all that have a mean have one.

    Args:
        many: metrics of cells and baselines, as `summarize` gives them.
        advice: what to do about it.
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
        f"has a value. {advice}"
    )


def render_table(result: dict[str, Any]) -> str:
    """The result for people, as Markdown."""
    heads = ["", *METRIC_NAMES.values()]
    ridges = any(each.get("ridge") for each in result["cells"])
    if ridges:
        heads += [f"ridge's {METRIC_NAMES[metric]}" for metric in RIDGE_METRICS]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for each in [*result["cells"], *result["baselines"]]:
        name = metric_names.NOTHING_MOVES if each["id"] == NOTHING_MOVES else each["id"]
        texts = [mean_text(each["metrics"].get(metric)) for metric in METRICS]
        if ridges:
            linear = (each.get("ridge") or {}).get("metrics", {})
            texts += [mean_text(linear.get(metric)) for metric in RIDGE_METRICS]
        lines.append(" | ".join([name, *texts]))
    table = "\n".join(f"| {line} |" for line in lines)
    notes = [
        f"{_scenes(result)}. Means with 95 % bootstrap intervals over clips. "
        f"{result['chosen']['note']}",
        *result["notes"],
    ]
    if ridges:
        notes.append("Ridges answer once a token, probes once a pixel of their maps.")
    for each in result["differences"]:
        if each["metric"] in SHOWN:
            gain = "" if each["gain"] is None else f", gain {100 * each['gain']:.1f} %"
            notes.append(
                f"{METRIC_NAMES[each['metric']]}: {each['a']} - {each['b']} = {each['mean']:+.4f} "
                f"[{each['low']:+.4f}, {each['high']:+.4f}]{gain}"
            )
    return "\n".join([table, "", *notes])


def _scenes(result: Mapping[str, Any]) -> str:
    """What was evaluated on: prepared data has a side, the world a version and seeds."""
    if "world" not in result:
        return f"{result['clips']} clips of the side {result['split']!r}"
    return (
        f"{result['clips']} clips of the split {result['split']!r} of world version "
        f"{result['world']} (seeds {result['seeds'][0]} to {result['seeds'][-1]}), noise seed "
        f"{result['noise_seed']}, {_probe_seeds(result['cells'])}"
    )


def _probe_seeds(cells: Sequence[Mapping[str, Any]]) -> str:
    """How many seeds the cells' probes have."""
    counts = sorted({len(cell["per_seed"]) for cell in cells})
    words = " or ".join(map(str, counts))
    return f"{words} seed{'' if counts == [1] else 's'} of each probe"


def mean_text(found: dict[str, Any] | None) -> str:
    """A mean with its interval, for a table."""
    if found is None:
        return "-"
    if found["low"] is None:
        return f"{found['mean']:.4f}"
    return f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
