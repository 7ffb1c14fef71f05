r"""Turn finished runs into shipped assets: models in diffusers' layout, probes with their cards.

    python -m explorer.toy.ship --vae runs/vae --transformer runs/transformer \
        --probes runs/probes --out assets

`--transformer` takes the runs of several models; those of variants of toy-wan are shipped without
the VAE, which they share with the toy-wan that is in the folder by then. Weights are rounded to
float16, which is how they are stored; probes are bound to the hashes of the files written here.
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
from safetensors.torch import save

from explorer.backbones import registry
from explorer.backbones._files import files_hash
from explorer.nets.vggt import VGGT, VGGTConfig
from explorer.probe.checkpoint import save_probe
from explorer.probe.model import Probe, ProbeConfig
from explorer.toy.config import (
    FLOW_SHIFT,
    HEIGHT,
    TRANSFORMER_CONFIG,
    VARIANTS,
    VGGT_CONFIG,
    VGGT_MAPS,
    WIDTH,
)
from explorer.toy.latents import fingerprint, load_vae
from explorer.toy.model_card import model_card, variant_card, vggt_card
from explorer.toy.shards import load_checkpoint, load_shards


def ship_model(vae_run: Path, transformer_run: Path, folder: Path) -> None:
    """Write vae/, transformer/, scheduler/ and card.json of `toy-wan`.

    They are written beside the folder and then take its place together.
    """
    vae: AutoencoderKLWan = load_vae(vae_run, "cpu")
    _, vae_card = load_checkpoint(vae_run, "vae")
    transformer, card = load_transformer(transformer_run)
    check_vae(card, vae.state_dict())
    library: Any = diffusers  # its lazy classes look empty to a type checker
    scheduler = library.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=FLOW_SHIFT)
    facts = {
        "trained": True,
        "world": {"vae": vae_card.get("world", 1), "transformer": card.get("world", 1)},
        "data": {"vae": vae_card["data"], "transformer": card["data"]},
        "steps": card["steps"],
        "seconds": card["train_seconds"],
        "loss": card["history"][-1]["loss"],
        "psnr_db": vae_card["psnr_db"],
        "parameters": {
            "vae": sum(p.numel() for p in vae.parameters()),
            "transformer": sum(p.numel() for p in transformer.parameters()),
        },
        "runs": {
            name: without_shards(run) for name, run in (("vae", vae_card), ("transformer", card))
        },
    }
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    vae.half().save_pretrained(fresh / "vae")
    transformer.half().save_pretrained(fresh / "transformer")
    scheduler.save_pretrained(fresh / "scheduler")
    (fresh / "card.json").write_text(json.dumps(facts, indent=1) + "\n")
    (fresh / "README.md").write_text(model_card(facts))
    take_place(fresh, folder)


def load_transformer(run: Path) -> tuple[Any, dict[str, Any]]:
    """The transformer of a run, of the shape that its card names, and the card."""
    tensors, card = load_checkpoint(run, "transformer")
    config = VARIANTS[card["model"]].config if "model" in card else TRANSFORMER_CONFIG
    transformer = WanTransformer3DModel(**config)
    transformer.load_state_dict(tensors)
    return transformer, card


def check_vae(card: dict[str, Any], state: dict[str, Any]) -> None:
    """Refuse a transformer and a VAE that were not trained together.

    Raises:
        ValueError: the transformer's card names another VAE.
    """
    found = fingerprint(state)
    if card.get("vae", found) != found:
        raise ValueError(
            f"this transformer was trained on the latents of the VAE {card['vae'][:12]}, and this "
            f"is {found[:12]}: ship the two that belong together"
        )


def without_shards(card: dict[str, Any]) -> dict[str, Any]:
    """A run's card without the names of its files, which are not shipped."""
    return {key: value for key, value in card.items() if key != "shards"}


def ship_variant(run: Path, models: Path) -> Path:
    """Write transformer/ and card.json of a variant beside the shipped toy-wan; its folder.

    Raises:
        ValueError: it was trained on another VAE than that of the shipped toy-wan.
    """
    transformer, card = load_transformer(run)
    vae = models / "toy-wan"
    check_vae(card, load_checkpoint(vae, "vae")[0])
    facts = {
        "trained": True,
        "model": card["model"],
        "vae": {"model": "toy-wan", "sha256": files_hash(vae / "vae")},
        "world": {"transformer": card["world"]},
        "data": {"transformer": card["data"]},
        "distinct_clips": card["distinct_clips"],
        "steps": card["steps"],
        "seconds": card["train_seconds"],
        "loss": card["history"][-1]["loss"],
        "parameters": {"transformer": sum(p.numel() for p in transformer.parameters())},
        "runs": {"transformer": without_shards(card)},
    }
    folder = models / card["model"]
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    transformer.half().save_pretrained(fresh / "transformer")
    (fresh / "card.json").write_text(json.dumps(facts, indent=1) + "\n")
    (fresh / "README.md").write_text(variant_card(facts))
    take_place(fresh, folder)
    return folder


def ship_vggt(run: Path, models: Path) -> Path:
    """Write config.json, model.safetensors and card.json of `toy-vggt`; its folder."""
    tensors, card = load_checkpoint(run, "vggt")
    model = VGGT(VGGTConfig(**VGGT_CONFIG))
    model.load_state_dict(tensors)
    facts = {
        "trained": True,
        "model": "toy-vggt",
        "input": [HEIGHT, WIDTH],
        "maps": list(VGGT_MAPS),
        "world": {"vggt": card["world"]},
        "data": {"vggt": card["data"]},
        "distinct_clips": card["distinct_clips"],
        "steps": card["steps"],
        "seconds": card["train_seconds"],
        "loss": card["history"][-1]["loss"],
        "parameters": {"vggt": sum(p.numel() for p in model.parameters())},
        "runs": {"vggt": without_shards(card)},
    }
    folder = models / "toy-vggt"
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / "config.json").write_text(json.dumps(VGGT_CONFIG, indent=1) + "\n")
    half = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    (fresh / "model.safetensors").write_bytes(save(half))
    (fresh / "card.json").write_text(json.dumps(facts, indent=1) + "\n")
    (fresh / "README.md").write_text(vggt_card(facts))
    take_place(fresh, folder)
    return folder


def take_place(fresh: Path, folder: Path) -> None:
    """Put a finished folder where another one may be; readable by everyone."""
    for path in fresh.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def ship_probes(run: Path, folder: Path) -> list[str]:
    """Write every probe of a run under `folder`, bound to the shipped backbones; their names."""
    written = []
    processes = int(json.loads((run / "probes0.json").read_text())["processes"])
    for rank in range(processes):
        tensors, card = load_shards(run, f"probes{rank}")
        if not card["finished"]:
            raise ValueError(f"{run} holds an unfinished run: resume it with train_probes first")
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


def model_of(run: Path) -> str:
    """The name in the card of a transformer's run; the first had none."""
    return str(load_checkpoint(run, "transformer")[1].get("model", "toy-wan"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--transformer", type=Path, nargs="+", default=[])
    parser.add_argument("--vggt", type=Path)
    parser.add_argument("--probes", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the assets folder")
    arguments = parser.parse_args()
    os.environ["EMERGE3D_ASSETS"] = str(arguments.out.resolve())
    torch.set_grad_enabled(False)
    models = arguments.out / "models"
    runs = {model_of(run): run for run in arguments.transformer}
    if "toy-wan" in runs:  # first: the others are held against its VAE
        if arguments.vae is None:
            parser.error("toy-wan is shipped with its VAE: give --vae")
        ship_model(arguments.vae, runs.pop("toy-wan"), models / "toy-wan")
    for run in runs.values():
        ship_variant(run, models)
    if arguments.vggt:
        ship_vggt(arguments.vggt, models)
    if arguments.probes:
        fresh = arguments.out / ".probes.new"
        shutil.rmtree(fresh, ignore_errors=True)
        ship_probes(arguments.probes, fresh)
        take_place(fresh, arguments.out / "probes")


if __name__ == "__main__":
    main()
