"""Every probe on held-out scenes: means with intervals, baselines, and paired differences.

    python -m explorer.evaluate --clips 64 --device cuda --out evaluation.json

Each scene is rendered once; its latents are computed once; each backbone makes one pass for each
noise level with all wanted layers. Best cells are chosen by the figures that training wrote on the
probes' cards (validation clips), so that the test clips judge and do not choose. Needs torch,
numpy, diffusers, safetensors, einops and roma only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer._atomic import begin, discard, replace_file
from explorer.assets import assets_root
from explorer.backbones import registry
from explorer.errors import EmergeError, ProbeError
from explorer.evaluate.answers import render_answers
from explorer.evaluate.choice import default_clips, subset
from explorer.evaluate.parts import TRAINING_MEAN, finish, join
from explorer.evaluate.table import (
    NOTHING_MOVES,
    best_cell,
    chosen_by,
    render_table,
)
from explorer.probe.checkpoint import SIGMA_TOLERANCE, ProbeCard, list_probes
from explorer.probe.training_split import check_held_out

if TYPE_CHECKING:
    from explorer.evaluate.run import Progress

SPLIT = "test"


def cell_id(card: ProbeCard) -> str:
    """How a cell is written on the command line: backbone:layer:sigma."""
    return f"{card.backbone}:{card.layer}:{card.sigma:g}"


def parse_cells(text: str, *, root: Path | None = None) -> list[ProbeCard]:
    """The probes of cells written as "backbone:layer:sigma,...", or "all", or "subset", in a folder
    of probes or among the shipped ones.

    Raises:
        ProbeError: a cell has no probe, or there is none at all; the message lists those that are.
    """
    cards = list_probes(root=root)
    if not cards:
        where = assets_root() / "probes" if root is None else root
        raise ProbeError(f"there are no probes in {where}: train some first")
    if text in ("all", "subset"):
        return cards if text == "all" else subset(cards)
    chosen = []
    for word in text.split(","):
        try:
            backbone, layer, sigma = word.strip().split(":")
            wanted = (backbone, int(layer), float(sigma))
        except ValueError:
            raise ProbeError(
                f"cell {word!r}: write backbone:layer:sigma, or all, or subset"
            ) from None
        found = [card for card in cards if _is(card, *wanted)]
        if not found:
            names = ", ".join(cell_id(card) for card in cards)
            raise ProbeError(f"there is no probe for {word!r}; there are: {names}")
        chosen.append(found[0])
    return chosen


def _is(card: ProbeCard, backbone: str, layer: int, sigma: float) -> bool:
    near = abs(card.sigma - sigma) < SIGMA_TOLERANCE
    return card.backbone == backbone and card.layer == layer and near


def evaluate(
    cards: Sequence[ProbeCard],
    *,
    clips: int = 64,
    device: str = "auto",
    seed: int = 0,
    mean_scenes: int = 256,
    proxies: bool = False,
    part: tuple[int, int] = (1, 1),
    on_clip: Progress | None = None,
) -> dict[str, Any]:
    """Compare probes with the exact geometry of the first scenes of the test split.

    Args:
        cards: of the probes.
        clips: number of scenes; one whose first frame sees only sky is replaced by the next.
        device: where backbones, probes and the renderer run.
        seed: of the noise, the same for every clip.
        mean_scenes: training scenes in the constant reconstruction.
        proxies: also compute the training-free proxies of `explorer.proxies`.
        part: (k, n), the k-th of n parts of the scenes; in a part none is replaced.
        on_clip: called with (clips done, clips, seconds so far) after each.

    Returns:
        JSON-ready: per cell and baseline the means with 95 % bootstrap intervals over clips (and
        over the probes of several seeds, where a cell has them) and the values of every clip; the
        chosen cells; paired differences between them; `explorer.evaluate.answers`; notes on what
        is missing.

    Raises:
        ProbeError: no card, or a probe that does not fit its backbone.
        SplitError: a probe was trained on one of these scenes.
        BackboneError: a backbone cannot be loaded.
        ValueError: fewer than one clip or training scene.
    """
    if not cards:
        raise ProbeError("no probe to evaluate: name at least one cell")
    if clips < 1 or mean_scenes < 1:
        raise ValueError(
            f"{clips} clips and {mean_scenes} training scenes: give at least 1 of each"
        )
    from explorer._machine import describe_machine
    from explorer.data.world.spec import WORLD_VERSION
    from explorer.data.world.splits import SPLITS, split_scene, split_seeds
    from explorer.evaluate.run import Evaluation
    from explorer.look.cache import versions

    # All that may be rendered: which of them begin in the sky, and are passed over, is seen later.
    scenes = [split_scene(seed) for seed in split_seeds(SPLIT, SPLITS[SPLIT].count)]
    warnings = check_held_out(cards, scenes)
    begin = time.perf_counter()
    device = registry.resolve_device(device)
    evaluation = Evaluation(cards, device=device, seed=seed, proxies=proxies)
    found = evaluation.run(clips=clips, mean_scenes=mean_scenes, part=part, on_clip=on_clip)
    return finish(
        {
            "suite": "toy",
            "split": SPLIT,
            "world": WORLD_VERSION,
            "seeds": found.seeds,
            "noise_seed": seed,
            "chosen": choose(cards),
            "cells": [
                _cell(card, seeds, ridge, figures)
                for card, seeds, ridge, figures in zip(
                    cards, found.cells, found.ridges, found.proxies, strict=True
                )
            ],
            "baselines": [
                {"id": TRAINING_MEAN, "scenes": mean_scenes, "per_clip": found.mean},
                {"id": NOTHING_MOVES, "per_clip": {"correspondence_error_px": found.still}},
            ],
            "notes": [*_other_worlds(cards, WORLD_VERSION), *warnings],
            "machine": describe_machine(device),
            "device": device,
            "versions": versions(),
            "seconds": {**found.seconds, "total": round(time.perf_counter() - begin, 2)},
        }
    )


def _other_worlds(cards: Sequence[ProbeCard], version: int) -> list[str]:
    """A note where probes were trained on another version of the world than they are judged on."""
    found = sorted({int(card.data.get("world_version", 1)) for card in cards} - {version})
    if not found:
        return []
    worlds = ", ".join(map(str, found))
    return [f"Probes of version {worlds} of the world are judged on scenes of version {version}."]


def _cell(
    card: ProbeCard,
    seeds: list[dict[str, list[float | None]]],
    ridge: dict[str, list[float | None]],
    proxies: dict[str, list[float | None]],
) -> dict[str, Any]:
    return {
        "id": cell_id(card),
        "backbone": card.backbone,
        "layer": card.layer,
        "sigma": card.sigma,
        "backbone_hash": card.backbone_hash,
        "probe": card.sha256,
        "trained": card.trained,
        "steps": card.steps,
        "validation": {k: v for k, v in card.metrics.items() if k.startswith("validation")},
        "per_seed": seeds,
        "ridge": {"per_clip": ridge} if ridge else None,
        "proxies": {"per_clip": proxies} if proxies else None,
    }


def choose(cards: Sequence[ProbeCard]) -> dict[str, Any]:
    """Each backbone's best cell by its cards' validation figures; None where they have none."""
    cells: dict[str, str | None] = {}
    names = set()
    for backbone in dict.fromkeys(card.backbone for card in cards):
        mine = [card for card in cards if card.backbone == backbone]
        try:
            names.add(chosen_by(mine))
            cells[backbone] = cell_id(best_cell(mine))
        except ProbeError:
            cells[backbone] = cell_id(mine[0]) if len(mine) == 1 else None
    by = " or ".join(sorted(names)) or None
    note = (
        f"Best cells have the lowest {by} on their cards: chosen on validation clips of training, "
        "not on these."
        if by
        else "The cards have no validation figures, so no best cell was chosen among several."
    )
    return {"by": by, "cells": cells, "note": note}


def write(path: Path, result: dict[str, Any]) -> None:
    """Put the result in a file, as `write_text` does."""
    write_text(path, json.dumps(result, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Put a text in a file that is the old or the new one at any time.

    Raises:
        EmergeError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def read(path: Path) -> dict[str, Any]:
    """A result that `write` has written.

    Raises:
        EmergeError: it is none.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        known = all("per_seed" in cell for cell in result["cells"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EmergeError(f"{path} is not an evaluation ({error!r}): evaluate again") from error
    if not known:
        raise EmergeError(f"{path} is an evaluation of an earlier form: evaluate again")
    return result


def parse_part(text: str) -> tuple[int, int]:
    """A part of the scenes written as "2/4": the second of four.

    Raises:
        EmergeError: it is written otherwise, or there is no such part.
    """
    try:
        number, count = (int(word) for word in text.split("/"))
    except ValueError:
        raise EmergeError(f"part {text!r}: write 2/4 for the second of four parts") from None
    if not 1 <= number <= count:
        raise EmergeError(f"part {text!r}: the first number goes from 1 to the second")
    return number, count


def check_writable(path: Path) -> None:
    """Find out before an hour of work, not after it, that the result has no place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        discard(begin(path))
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> EmergeError:
    return EmergeError(f"the result cannot be written to {path} ({error}): choose another file")


def run_command(
    *,
    clips: int | None,
    cells: str | None,
    device: str,
    proxies: bool,
    part: str,
    joined: Sequence[Path],
    out: Path | None,
    as_json: bool,
    show: Callable[[str], None],
    note: Callable[[str], None],
) -> None:
    """What both command lines do: evaluate, show, write.

    Without `clips` and `cells` a GPU takes all of both and a processor what it can do in minutes.
    `joined` are the files of parts that are evaluated already.
    """
    if clips is not None and clips < 1:
        raise EmergeError(f"{clips} clips: give 1 or more")
    if out is not None:
        check_writable(out)
    if joined:
        result = join([read(path) for path in joined])
    else:
        device = registry.resolve_device(device)
        result = evaluate(
            parse_cells(cells or ("subset" if device == "cpu" else "all")),
            clips=clips or default_clips(device),
            device=device,
            proxies=proxies,
            part=parse_part(part),
            on_clip=lambda done, of, spent: note(f"{done}/{of} clips, {spent:.0f} s"),
        )
    # Shown first: where it cannot be written the work is not lost.
    if as_json:
        show(json.dumps(result, allow_nan=False))
    else:
        show(f"{render_table(result)}\n\n{render_answers(result['answers'])}")
    if out is not None:
        write(out, result)
        note(f"wrote {out}")
