"""Ridge readouts of cells, beside the probe's: fitted, chosen and judged on scenes of the world.

    python -m explorer.toy.ridge --train 256 --validation 64 --clips 64 \
        --cells toy-wan:5:0.3,random:5:0.3,latent:0:0.1,rgb:0:0.0 --device auto --out ridge.json

Fits on the first scenes of the split "train", chooses penalties on "validation", and judges on the
first `--clips` scenes of "test": those of `explorer.evaluate` with the same noise, so that figures
can be paired clip by clip. Errors are at token resolution, one answer for each token
(`explorer.probe.ridge`); the cells' shipped probes are judged at the same tokens. Unless
`--no-position` is given, every cell reads its tokens' positions too, as the controls `latent` and
`rgb` always do. Needs torch, numpy, diffusers, safetensors, einops and roma; `--proxies` also
OpenCV.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from explorer._machine import describe_machine
from explorer.backbones import registry
from explorer.errors import EmergeError
from explorer.evaluate import check_writable, write
from explorer.evaluate.table import differences, mean_text, summarize
from explorer.look.cache import versions
from explorer.probe.ridge import PENALTIES, Ridge
from explorer.probe.ridge_files import save_ridge
from explorer.toy.cells import Cell
from explorer.toy.ridge_run import ERRORS, Judged, Note, RidgeRun, parse_cells

MEAN = "training mean per token"


def measure(
    cells: Sequence[Cell],
    *,
    train: int,
    validation: int,
    clips: int,
    device: str = "auto",
    seed: int = 0,
    position: bool = True,
    probes: bool = True,
    proxies: bool = False,
    save: Path | None = None,
    note: Note = lambda _: None,
) -> dict[str, Any]:
    """Fit a ridge to each cell and judge it on test scenes.

    Args:
        cells: from `parse_cells`.
        train: scenes to fit, of the split "train".
        validation: scenes to choose penalties by, of "validation".
        clips: scenes to judge on, of "test".
        device: where backbones, probes and the renderer run.
        seed: of the noise on test scenes.
        position: whether every cell reads its tokens' positions too.
        probes: also judge the cells' shipped probes at the same tokens.
        proxies: also compute the training-free proxies.
        save: folder to write the ridges to.
        note: told about progress.

    Returns:
        JSON-ready: of each cell the penalties, R^2 and errors with 95 % bootstrap intervals over
        test clips; the training mean's errors; paired differences between each backbone's best
        cell (highest validation R^2 of points) and the others', and the training mean.

    Raises:
        EmergeError: no clips of a split, or a backbone or probe that cannot be used.
    """
    if min(train, validation, clips) < 1:
        raise EmergeError(
            f"{train} training, {validation} validation and {clips} test clips: give at least 1 "
            "of each"
        )
    begin = time.perf_counter()
    device = registry.resolve_device(device)
    run = RidgeRun(cells, device=device, position=position, note=note)
    ridges = run.fit(train=train, validation=validation)
    judged = run.judge(ridges, clips=clips, seed=seed, probes=probes, proxies=proxies)
    found = [_cell(*each, judged, k) for k, each in enumerate(zip(cells, ridges, strict=True))]
    if save is not None:
        data = {"world": "toy", "fit": "train", "penalty": "validation", "metrics": "test"}
        for ridge, entry in zip(ridges, found, strict=True):
            save_ridge(ridge, save, data=data, metrics=entry["metrics"])
    chosen = choose(found)
    values = {entry["id"]: entry["per_clip"] for entry in found} | {MEAN: judged.mean}
    return {
        "suite": "toy ridge",
        "resolution": "one answer a token",
        "split": "test",
        "clips": clips,
        "train": train,
        "validation": validation,
        "seeds": judged.seeds,
        "noise_seed": seed,
        "position": position,
        "penalties": list(PENALTIES),
        "chosen": chosen,
        "cells": found,
        "baselines": [{"id": MEAN, "metrics": summarize(judged.mean), "per_clip": judged.mean}],
        "differences": [
            entry
            for a, b in itertools.combinations([*chosen.values(), MEAN], 2)
            for entry in differences(a, values[a], b, values[b])
        ],
        "machine": describe_machine(device),
        "device": device,
        "versions": versions(),
        "seconds": {
            **{name: round(spent, 2) for name, spent in run.seconds.items()},
            "total": round(time.perf_counter() - begin, 2),
        },
    }


def _cell(cell: Cell, ridge: Ridge, judged: Judged, index: int) -> dict[str, Any]:
    entry = {
        "id": f"{cell.backbone}:{cell.layer}:{cell.sigma:g}",
        "backbone": cell.backbone,
        "layer": cell.layer,
        "sigma": cell.sigma,
        "backbone_hash": ridge.cell.backbone_hash,
        "channels": len(ridge.fit.mean),
        "penalties": ridge.penalties,
        "validation_r2": ridge.validation_r2,
        "train_r2": ridge.train_r2,
        "tokens": ridge.tokens,
        "metrics": summarize(judged.ridges[index]),
        "per_clip": judged.ridges[index],
    }
    for name, values in (("probe", judged.probes[index]), ("proxies", judged.proxies[index])):
        entry[name] = {"metrics": summarize(values), "per_clip": values} if values else None
    return entry


def choose(found: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Each backbone's cell with the highest validation R^2 of points; test clips have no say."""
    best: dict[str, dict[str, Any]] = {}
    for entry in found:
        rival = best.get(entry["backbone"])
        mine = entry["validation_r2"]["points"]
        if rival is None or mine > rival["validation_r2"]["points"]:
            best[entry["backbone"]] = entry
    return {backbone: entry["id"] for backbone, entry in best.items()}


def render_table(result: dict[str, Any]) -> str:
    """The result for people, as Markdown."""
    lines = [
        "| | point error | depth error | probe's point error | probe's depth error "
        "| R² points | R² log-depth | penalty points | penalty log-depth |",
        "| " + " | ".join(["---"] * 9) + " |",
    ]
    for each in [*result["cells"], *result["baselines"]]:
        probe = (each.get("probe") or {}).get("metrics", {})
        texts = [mean_text(each["metrics"].get(name)) for name in ERRORS]
        texts += [mean_text(probe.get(name)) for name in ERRORS]
        for key, form in (("validation_r2", "{:.3f}"), ("penalties", "{:.1e}")):
            values = each.get(key)
            texts += [form.format(values[n]) if values else "-" for n in ("points", "log_depth")]
        lines.append(f"| {each['id']} | " + " | ".join(texts) + " |")
    lines += [
        "",
        f"{result['clips']} clips of the split {result['split']!r}, {result['train']} training and "
        f"{result['validation']} validation clips; errors at token resolution, R² on validation.",
    ]
    for each in result["differences"]:
        lines.append(
            f"{each['metric']}: {each['a']} - {each['b']} = {each['mean']:+.4f} "
            f"[{each['low']:+.4f}, {each['high']:+.4f}]"
        )
    return "\n".join(lines)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m explorer.toy.ridge", description="Fit and judge ridge readouts of cells."
    )
    parser.add_argument("--train", type=int, default=256, help="scenes to fit")
    parser.add_argument("--validation", type=int, default=64, help="scenes to choose penalties by")
    parser.add_argument("--clips", type=int, default=64, help="test scenes")
    parser.add_argument("--cells", required=True, help="backbone:layer:sigma,...")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-position", action="store_true", help="features alone")
    parser.add_argument("--no-probes", action="store_true", help="ridges alone")
    parser.add_argument("--proxies", action="store_true", help="also training-free proxies")
    parser.add_argument("--save", type=Path, help="folder for the fitted ridges")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    options = parser.parse_args(argv)
    try:
        if options.out is not None:
            check_writable(options.out)
        if options.save is not None:
            check_writable(options.save / "card.json")
        result = measure(
            parse_cells(options.cells),
            train=options.train,
            validation=options.validation,
            clips=options.clips,
            device=options.device,
            position=not options.no_position,
            probes=not options.no_probes,
            proxies=options.proxies,
            save=options.save,
            note=_tell,
        )
        sys.stdout.write(render_table(result) + "\n")
        if options.out is not None:
            write(options.out, result)
    except EmergeError as error:
        sys.stderr.write(f"ridge: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
