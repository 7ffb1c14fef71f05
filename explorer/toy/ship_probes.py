"""Turn runs of `train_probes` into shipped probes with their cards."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from explorer._atomic import replace_file
from explorer.backbones import registry
from explorer.probe.checkpoint import Storage, list_probes, list_seeds, save_probe
from explorer.probe.model import Probe, ProbeConfig
from explorer.toy.cells import TRAINED, Cell, best_cells, read_cards
from explorer.toy.equal import check_equal
from explorer.toy.shards import load_shards


def ship_probes(
    runs: Sequence[Path],
    folder: Path,
    *,
    storage: Storage = "float16",
    best: int | None = None,
    beside: Path | None = None,
    renamed: Mapping[str, str] | None = None,
) -> list[str]:
    """Write the probes of runs under `folder`, bound to the shipped backbones; their names.

    Args:
        runs: together all cells; those of other seeds than 0 repeat some of them.
        folder: with one folder for each backbone.
        storage: of the weights.
        best: of every backbone but toy-wan only so many cells, those best on validation.
        beside: shipped probes that stay, with the evaluation of them: the cells are added to them.
        renamed: new hashes by old ones of backbones whose features are the same as before.

    Raises:
        ValueError: a run is unfinished, its cells were trained for other steps or on other clips
            than those of another, or a cell comes twice with one seed; or the probes that stay
            are of other weights than those shipped now.
    """
    cards, written = read_cards(runs), []
    if beside is not None:
        cards += read_cards([beside])
        written = _stay(beside, folder, renamed or {})
    check_equal(cards)
    first = [card for card in cards if not card["seed"]]
    kept = None if best is None else {cell.name for cell in best_cells(first, best)}
    for run in runs:
        for path in sorted(run.glob("probes*.json")):
            tensors, card = load_shards(run, path.stem)
            if not card["finished"]:
                raise ValueError(
                    f"{run} holds an unfinished run: resume it with train_probes first"
                )
            for name, cell in card["cells"].items():
                if kept is not None and cell["backbone"] != "toy-wan" and name not in kept:
                    continue
                label = f"{name} seed {card['seed']}" if card["seed"] else name
                if label in written:
                    raise ValueError(f"{label} is in {run} and was there before: leave one out")
                _write(name, cell, card, tensors, folder, storage)
                written.append(label)
    return written


def _stay(shipped: Path, folder: Path, renamed: Mapping[str, str]) -> list[str]:
    """Copy shipped probes, bound to the new hashes; their names."""
    names: list[str] = []
    shutil.copytree(shipped, folder)
    for card in list_probes(root=folder):
        seeds = list_seeds(card)
        for each in (card, *seeds):
            found = renamed.get(each.backbone_hash, each.backbone_hash)
            if found != registry.hashes(each.backbone).weights:
                raise ValueError(f"{each.weights} was trained on other weights: train it again")
            bound = dataclasses.replace(each, backbone_hash=found)
            replace_file(each.weights.with_suffix(".json"), bound.to_json().encode())
        cell = Cell(card.backbone, card.layer, card.sigma).name
        names += [cell, *(f"{cell} seed {each.data['seed']}" for each in seeds)]
    return names


def _write(
    name: str,
    cell: dict[str, Any],
    card: dict[str, Any],
    tensors: dict[str, Any],
    folder: Path,
    storage: Storage,
) -> None:
    probe = Probe(ProbeConfig.from_dict(cell["config"]))
    prefix = f"{name}/"
    probe.load_state_dict(
        {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}
    )
    trained: dict[str, Any] = {name: card[name] for name in TRAINED if name in card}
    save_probe(
        probe,
        folder,
        backbone=cell["backbone"],
        backbone_hash=registry.hashes(cell["backbone"]).weights,
        layer=cell["layer"],
        sigma=cell["sigma"],
        data={**card["data"], **trained},
        steps=card["steps"],
        seconds=card["seconds"],
        metrics=cell["metrics"],
        storage=storage,
        seed=card["seed"],
    )
