"""From values of every clip to a result, and results of parts to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from explorer.backbones import registry
from explorer.errors import EmergeError
from explorer.evaluate.answers import answers
from explorer.evaluate.table import differences, interval_note, summarize

TRAINING_MEAN = "training mean per pixel"
SAME = ("suite", "split", "world", "noise_seed", "chosen")
"""What the parts of one evaluation have in common, besides the identity of their cells."""

Values = dict[str, list[float | None]]


def finish(result: dict[str, Any]) -> dict[str, Any]:
    """A result with everything that follows from the values of its clips.

    Args:
        result: whose cells have "per_seed" and, each or None, "ridge" and "proxies" with
            "per_clip", as have its baselines; with "chosen" and "notes" on other things.
    """
    cells = [
        {
            **cell,
            "metrics": summarize(cell["per_seed"]),
            "per_clip": {
                name: _mean_of([each[name] for each in cell["per_seed"]])
                for name in cell["per_seed"][0]
            },
            **{name: _both(cell[name]) for name in ("ridge", "proxies")},
        }
        for cell in result["cells"]
    ]
    baselines = [{**each, **(_both(each) or {})} for each in result["baselines"]]
    note = interval_note([each["metrics"] for each in [*cells, *baselines]])
    values_of: dict[str, Any] = {cell["id"]: cell["per_seed"] for cell in cells}
    values_of |= {each["id"]: each["per_clip"] for each in baselines}
    whole = {
        **result,
        "clips": len(result["seeds"]),
        "cells": cells,
        "baselines": baselines,
        "differences": _compare_chosen(result["chosen"]["cells"], values_of),
        "notes": [*([note] if note else []), *result["notes"]],
    }
    return {**whole, "answers": answers(whole)}


def join(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result of evaluations of the same cells on different scenes.

    Raises:
        EmergeError: they differ in more than their scenes, or share one.
    """
    first = results[0]
    for other in results[1:]:
        if _identities(other) != _identities(first):
            raise EmergeError("these are no parts of one evaluation: they are of other probes")
        for name in SAME:
            if other[name] != first[name]:
                raise EmergeError(f"these are no parts of one evaluation: they differ in {name}")
    seeds = [seed for each in results for seed in each["seeds"]]
    if len(set(seeds)) < len(seeds):
        raise EmergeError("these parts share scenes: evaluate different --part of the same --clips")

    cells = [
        {
            **cell,
            "per_seed": [
                _joined([each["cells"][index]["per_seed"][seed] for each in results])
                for seed in range(len(cell["per_seed"]))
            ],
            **{
                name: _joined_clips([each["cells"][index][name] for each in results])
                for name in ("ridge", "proxies")
            },
        }
        for index, cell in enumerate(first["cells"])
    ]
    baselines = [
        {**each, **(_joined_clips([other["baselines"][index] for other in results]) or {})}
        for index, each in enumerate(first["baselines"])
    ]
    names = dict.fromkeys(name for each in results for name in each["seconds"])
    seconds = {
        name: round(sum(each["seconds"].get(name, 0.0) for each in results), 2) for name in names
    }
    notes = [note for note in first["notes"] if not note.startswith("No intervals")]
    return finish(
        {**first, "seeds": seeds, "cells": cells, "baselines": baselines, "notes": notes,
         "seconds": seconds}
    )  # fmt: skip


def _joined(parts: Sequence[Values]) -> Values:
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def _joined_clips(parts: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """None where any part has none."""
    known = [part["per_clip"] for part in parts if part is not None]
    return {"per_clip": _joined(known)} if len(known) == len(parts) else None


def _identities(result: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(cell["id"], cell["probe"], len(cell["per_seed"])) for cell in result["cells"]]


def _both(each: dict[str, Any] | None) -> dict[str, Any] | None:
    if not each:
        return None
    return {"metrics": summarize(each["per_clip"]), "per_clip": each["per_clip"]}


def _mean_of(seeds: list[list[float | None]]) -> list[float | None]:
    """The mean over seeds of every clip that all of them have a value of."""
    if len(seeds) == 1:
        return seeds[0]
    means: list[float | None] = []
    for values in zip(*seeds, strict=True):
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if len(known) == len(values) else None)
    return means


def _compare_chosen(
    chosen: dict[str, str | None], values_of: dict[str, Any]
) -> list[dict[str, Any]]:
    """The best cell of each video model against those of the controls and the training mean."""
    kinds = {card.id: card.kind for card in registry.cards()}
    controls = [cell for name, cell in chosen.items() if cell and kinds.get(name) == "control"]
    subjects = [cell for name, cell in chosen.items() if cell and kinds.get(name) != "control"]
    return [
        entry
        for a in subjects or controls
        for b in [*(each for each in controls if each != a), TRAINING_MEAN]
        for entry in differences(a, values_of[a], b, values_of[b])
    ]
