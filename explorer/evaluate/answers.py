"""What an evaluation says about the questions that the toy laboratory was made for, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explorer.evaluate.choice import SUBJECT
from explorer.evaluate.table import differences
from explorer.metric_names import METRIC_NAMES
from explorer.metrics.interval import range_of
from explorer.metrics.rank import spearman

ASKED = ("point_error", "depth_error", "auc30")
AIMS = {
    ("random", "point_error"): 0.80,
    ("latent", "point_error"): 0.85,
    ("rgb", "point_error"): 0.70,
    ("random", "auc30"): 1.5,
    ("toy-image", "auc30"): 1.3,
}
"""Ratios that the best cell of toy-wan should reach: at most for errors, at least for AUC."""
NOT_AMONG = "not among the probes evaluated"
RESAMPLES = 1000
FEWEST_CELLS = 4  # a rank correlation of fewer says nothing


@dataclass
class Answer:
    """One question with its lines, each of which stands for itself."""

    question: str
    lines: list[str] = field(default_factory=list)


def answers(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The questions in order, with lines of Markdown; JSON-ready.

    Args:
        result: of `explorer.evaluate.evaluate`.
    """
    cells = {cell["id"]: cell for cell in result["cells"]}
    chosen = {
        name: cells[cell] for name, cell in result["chosen"]["cells"].items() if cell is not None
    }
    every: tuple[Callable[[dict[str, Any], dict[str, Any]], Answer], ...] = (
        _beats, _peak, _size, _data, _expert, _proxies,
    )  # fmt: skip
    found = [ask(chosen, cells) for ask in every]
    return [{"question": each.question, "lines": each.lines} for each in found]


def render_answers(found: Sequence[dict[str, Any]]) -> str:
    """The answers for people, as a numbered list in Markdown."""
    parts = []
    for number, each in enumerate(found, start=1):
        parts.append(f"{number}. {each['question']}")
        parts += [f"   - {line}" for line in each["lines"]]
    return "\n".join(parts)


def _beats(chosen: dict[str, Any], _: dict[str, Any]) -> Answer:
    """Each on points and pose, not only on depth."""
    answer = Answer("Does video training beat random weights, latents, RGB and single frames?")
    if SUBJECT not in chosen:
        answer.lines.append(f"{SUBJECT}: {NOT_AMONG}")
        return answer
    for name in ("random", "latent", "rgb", "toy-image"):
        answer.lines += _compared(chosen, SUBJECT, name)
    return answer


def _size(chosen: dict[str, Any], _: dict[str, Any]) -> Answer:
    answer = Answer("Does size help?")
    answer.lines += _compared(chosen, "toy-wan-large", SUBJECT)
    answer.lines += _compared(chosen, "random-large", "random")
    return answer


def _data(chosen: dict[str, Any], _: dict[str, Any]) -> Answer:
    answer = Answer("Does more data help, at the same size and steps?")
    for share in ("10pct", "1pct"):
        answer.lines += _compared(chosen, SUBJECT, f"toy-wan-{share}")
    return answer


def _expert(chosen: dict[str, Any], _: dict[str, Any]) -> Answer:
    answer = Answer("How far is the 3D expert, and the predictive encoder?")
    for name in ("toy-vggt", "toy-jepa"):
        answer.lines += _compared(chosen, name, SUBJECT)
    return answer


def _compared(chosen: dict[str, Any], ours: str, theirs: str) -> list[str]:
    missing = [name for name in (ours, theirs) if name not in chosen]
    if missing:
        return [f"{', '.join(missing)}: {NOT_AMONG}"]
    return _pair(chosen[ours], chosen[theirs], aims=ours == SUBJECT)


def _pair(a: dict[str, Any], b: dict[str, Any], *, aims: bool = False) -> list[str]:
    pairs = differences(a["id"], a["per_seed"], b["id"], b["per_seed"])
    found = {each["metric"]: each for each in pairs}
    parts = []
    for metric in ASKED:
        if metric not in found:
            continue
        each = found[metric]
        text = (
            f"{METRIC_NAMES[metric]} {each['mean']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}]"
        )
        ratio = each["ratio"]
        if ratio is not None:
            text += f", ratio {ratio['mean']:.2f}"
            if ratio["low"] is not None:
                text += f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        aim = AIMS.get((b["backbone"], metric)) if aims else None
        if aim is not None:
            more = metric == "auc30"
            # Without a ratio the other side is 0, and anything above it is more.
            found_ratio = ratio["mean"] if ratio else float("inf") if each["mean"] > 0 else 0.0
            reached = found_ratio >= aim if more else found_ratio <= aim
            text += f" (aim {'at least' if more else 'at most'} {aim:g}: "
            text += "reached)" if reached else "missed)"
        parts.append(text)
    if not parts:
        return [f"{a['id']} - {b['id']}: no two common clips"]
    return [f"{a['id']} - {b['id']}: " + "; ".join(parts)]


def _peak(chosen: dict[str, Any], cells: dict[str, Any]) -> Answer:
    answer = Answer("Where does the map of toy-wan peak over layers and sigma, and is it inside?")
    mine = [cell for cell in cells.values() if cell["backbone"] == SUBJECT]
    if SUBJECT not in chosen or not mine:
        answer.lines.append(f"{SUBJECT}: {NOT_AMONG}")
        return answer
    best = chosen[SUBJECT]
    layers = sorted({cell["layer"] for cell in mine})
    sigmas = sorted({cell["sigma"] for cell in mine})
    lowest = min(mine, key=_point_error)
    answer.lines.append(
        f"best on validation clips: {best['id']}; lowest on these clips, which choose nothing: "
        f"{lowest['id']}, among layers {', '.join(map(str, layers))} and sigma "
        f"{', '.join(f'{sigma:g}' for sigma in sigmas)}"
    )
    rivals = {
        "first layer": (layers[0], best["sigma"]),
        "last layer": (layers[-1], best["sigma"]),
        "same layer without noise": (best["layer"], 0.0),
    }
    for name, (layer, sigma) in rivals.items():
        found = [each for each in mine if (each["layer"], each["sigma"]) == (layer, sigma)]
        if found and found[0] is not best:
            answer.lines += [f"against the {name}: {line}" for line in _pair(best, found[0])]
        elif found:
            answer.lines.append(f"the best cell is at the edge of the map: {name}")
        else:
            answer.lines.append(f"{name}: {NOT_AMONG}")
    return answer


def _point_error(cell: dict[str, Any]) -> float:
    found = cell["metrics"].get("point_error")
    return float("inf") if found is None else float(found["mean"])


def _proxies(_: dict[str, Any], cells: dict[str, Any]) -> Answer:
    answer = Answer(
        "Does correspondence error, or another training-free figure, predict the probe?"
    )
    names = {"correspondence_error_px": "correspondence error", "pck": "PCK"}
    tables: dict[str, dict[str, list[Any]]] = {}
    for cell in cells.values():
        values = {names[name]: cell["per_clip"].get(name) for name in names}
        values["ridge point error"] = (
            (cell.get("ridge") or {}).get("per_clip", {}).get("point_error")
        )
        values |= (cell.get("proxies") or {}).get("per_clip", {})
        for name, clips in values.items():
            if clips:
                tables.setdefault(name, {})[cell["id"]] = clips
    ranked = []
    for name, table in tables.items():
        everywhere = _rank(name, table, cells)
        within = _rank(
            name, {k: v for k, v in table.items() if cells[k]["backbone"] == SUBJECT}, cells
        )
        if everywhere is not None:
            inside = f"; within {SUBJECT} {within[1]}" if within else ""
            ranked.append((abs(everywhere[0]), f"{name}: {everywhere[1]}{inside}"))
    answer.lines += [line for _, line in sorted(ranked, reverse=True)]
    if not ranked:
        answer.lines.append(f"fewer than {FEWEST_CELLS} cells with figures: no correlation")
    if not any("ridge" in cell and cell["ridge"] for cell in cells.values()):
        answer.lines.append("ridge readouts: none (python -m explorer.toy.ridge fits them)")
    return answer


def _rank(
    name: str, table: dict[str, list[Any]], cells: dict[str, Any]
) -> tuple[float, str] | None:
    """Spearman correlation of cell means with probe point errors, and its text with interval."""
    both = [(table[cell], cells[cell]["per_clip"]["point_error"]) for cell in table]
    if len(both) < FEWEST_CELLS:
        return None
    proxy, error = (np.array(each, dtype=np.float64) for each in zip(*both, strict=True))
    known = np.isfinite(proxy).all(axis=0) & np.isfinite(error).all(axis=0)
    proxy, error = proxy[:, known], error[:, known]
    if proxy.shape[1] < 2:
        return None
    found = float(spearman(proxy.mean(axis=1), error.mean(axis=1)))
    if not np.isfinite(found):
        return None
    clips = proxy.shape[1]
    weights = np.random.default_rng(0).multinomial(clips, np.full(clips, 1 / clips), RESAMPLES)
    resampled = spearman(weights @ proxy.T, weights @ error.T)
    low, high = range_of(resampled[np.isfinite(resampled)])
    return found, f"rank correlation {found:+.2f} [{low:+.2f}, {high:+.2f}] over {len(both)} cells"
