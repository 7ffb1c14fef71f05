r"""Turn finished runs into shipped assets: models in diffusers' layout, probes with their cards.

    python -m explorer.toy.ship --vae runs/vae --transformer runs/transformer \
        --probes runs/probes --out assets

Weights are rounded to float16, which is how they are stored; probes are bound to the hashes of the
files written here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from explorer.backbones import registry
from explorer.probe.checkpoint import save_probe
from explorer.probe.model import Probe, ProbeConfig
from explorer.toy.config import FLOW_SHIFT, TRANSFORMER_CONFIG
from explorer.toy.latents import load_vae
from explorer.toy.shards import load_shards


def ship_model(vae_run: Path, transformer_run: Path, folder: Path) -> None:
    """Write vae/, transformer/, scheduler/ and card.json of `toy-wan`."""
    vae: AutoencoderKLWan = load_vae(vae_run, "cpu")
    tensors, card = load_shards(transformer_run, "transformer")
    transformer = WanTransformer3DModel(**TRANSFORMER_CONFIG)
    transformer.load_state_dict({name: value.float() for name, value in tensors.items()})
    library: Any = diffusers  # its lazy classes look empty to a type checker
    scheduler = library.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=FLOW_SHIFT)
    for name in ("vae", "transformer", "scheduler"):
        shutil.rmtree(folder / name, ignore_errors=True)
    vae.half().save_pretrained(folder / "vae")
    transformer.half().save_pretrained(folder / "transformer")
    scheduler.save_pretrained(folder / "scheduler")
    _, vae_card = load_shards(vae_run, "vae")
    facts = {
        "trained": True,
        "data": {"vae": vae_card["data"], "transformer": card["data"]},
        "steps": card["steps"],
        "clips": card["clips"],
        "seconds": card["train_seconds"],
        "gpus": card["gpus"],
        "loss": card["history"][-1]["loss"],
        "validation": card.get("validation"),
        "vae": {key: vae_card[key] for key in ("steps", "train_seconds", "psnr_db", "slices")},
        "parameters": {
            "vae": sum(p.numel() for p in vae.parameters()),
            "transformer": sum(p.numel() for p in transformer.parameters()),
        },
        "history": {"vae": vae_card["history"], "transformer": card["history"]},
    }
    partial = folder / "card.json.partial"
    with partial.open("w") as file:
        json.dump(facts, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / "card.json")


def ship_probes(run: Path, folder: Path) -> list[str]:
    """Write every probe of a run under `folder`, bound to the shipped backbones; their names."""
    written = []
    for path in sorted(run.glob("probes*.json")):
        tensors, card = load_shards(run, path.stem)
        for name, cell in card["cells"].items():
            probe = Probe(ProbeConfig.from_dict(cell["config"]))
            prefix = f"{name}/"
            state = {
                key.removeprefix(prefix): value.float()
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
            probe.load_state_dict(state)
            save_probe(
                probe,
                folder,
                backbone=cell["backbone"],
                backbone_hash=registry.hashes(cell["backbone"]).weights,
                layer=cell["layer"],
                sigma=cell["sigma"],
                data={**card["data"], "batch": card["batch"], "seed": card["seed"]},
                steps=card["steps"],
                seconds=card["seconds"],
                metrics=cell["metrics"],
            )
            written.append(name)
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--transformer", type=Path)
    parser.add_argument("--probes", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the assets folder")
    arguments = parser.parse_args()
    os.environ["EMERGE3D_ASSETS"] = str(arguments.out.resolve())
    torch.set_grad_enabled(False)
    if arguments.vae and arguments.transformer:
        ship_model(arguments.vae, arguments.transformer, arguments.out / "models" / "toy-wan")
    if arguments.probes:
        shutil.rmtree(arguments.out / "probes", ignore_errors=True)
        ship_probes(arguments.probes, arguments.out / "probes")


if __name__ == "__main__":
    main()
