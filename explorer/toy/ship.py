r"""Turn finished runs into shipped assets: models in diffusers' layout, probes with their cards.

    python -m explorer.toy.ship --vae runs/vae --transformer runs/transformer \
        --probes runs/probes --out assets

`--transformer` takes the runs of several models; those of variants of toy-wan are shipped without
the VAE, which they share with the toy-wan that is in the folder by then. Weights are rounded to
float16, which is how they are stored; probes are bound to the hashes of the files written here.
`--probes` takes all runs that together are the grid; they must be of equal steps on the same clips.
With `--beside` they are added to the shipped ones, which stay, also under a VAE whose decoder alone
is new.
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
from torch import nn

from explorer.backbones import registry
from explorer.backbones._files import files_hash
from explorer.nets.vggt import VGGT, VGGTConfig
from explorer.nets.vjepa import VideoViT, VideoViTConfig
from explorer.probe.checkpoint import list_probes
from explorer.toy.config import (
    FLOW_SHIFT,
    HEIGHT,
    JEPA_CONFIG,
    TRANSFORMER_CONFIG,
    VARIANTS,
    VGGT_CONFIG,
    VGGT_MAPS,
    WIDTH,
)
from explorer.toy.jepa import TARGET
from explorer.toy.latents import STATISTICS, fingerprint, load_vae
from explorer.toy.model_card import model_card, network_card, variant_card
from explorer.toy.probe_models import model_of
from explorer.toy.shards import load_checkpoint
from explorer.toy.ship_probes import ship_probes

OF_THE_VAE = ("toy-wan", "random", "latent")
"""Backbones whose hash a new decoder changes, though their features stay the same."""


def ship_model(
    vae_run: Path, transformer_run: Path, folder: Path, *, samples: Path | None = None
) -> None:
    """Write vae/, transformer/, scheduler/ and card.json of `toy-wan`.

    They are written beside the folder and then take its place together; with them the contact sheet
    of a run of `explorer.toy.sample`.
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
    if samples is not None:
        facts["samples"] = json.loads((samples / "samples.json").read_text())
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    vae.half().save_pretrained(fresh / "vae")
    transformer.half().save_pretrained(fresh / "transformer")
    scheduler.save_pretrained(fresh / "scheduler")
    (fresh / "card.json").write_text(json.dumps(facts, indent=1) + "\n")
    (fresh / "README.md").write_text(model_card(facts))
    if samples is not None:
        shutil.copyfile(samples / "samples.png", fresh / "samples.png")
    take_place(fresh, folder)


def same_features(vae_run: Path, transformer_run: Path, folder: Path) -> bool:
    """Whether runs give the features of the shipped `toy-wan`: all but the decoder is equal."""
    if not (folder / "card.json").is_file():
        return False
    (ours, card), (theirs, shipped) = (load_checkpoint(run, "vae") for run in (vae_run, folder))
    if fingerprint(ours) != fingerprint(theirs):
        return False
    if any(card[name] != shipped[name] for name in STATISTICS):
        return False
    (ours, _), (theirs, _) = (
        load_checkpoint(run, "transformer") for run in (transformer_run, folder)
    )
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name].half(), value.half()) for name, value in theirs.items()
    )


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


def ship_network(
    run: Path,
    models: Path,
    *,
    kind: str,
    config: dict[str, Any],
    network: nn.Module,
    prefix: str = "",
    more: dict[str, Any] | None = None,
) -> Path:
    """Write config.json, model.safetensors and card.json of a network of this project; its folder.

    Args:
        run: of its training.
        models: folder of the shipped models.
        kind: "vggt" or "jepa": the name of its checkpoint, and of its folder after "toy-".
        config: of the network.
        network: of that configuration; takes the weights.
        prefix: of its weights among those of the checkpoint.
        more: facts for the card.

    Raises:
        RuntimeError: the checkpoint does not fit the network.
    """
    tensors, card = load_checkpoint(run, kind)
    network.load_state_dict(
        {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
    )
    facts = {
        "trained": True,
        "model": f"toy-{kind}",
        "input": [HEIGHT, WIDTH],
        **(more or {}),
        "world": {kind: card["world"]},
        "data": {kind: card["data"]},
        "distinct_clips": card["distinct_clips"],
        "steps": card["steps"],
        "seconds": card["train_seconds"],
        "loss": card["history"][-1]["loss"],
        "parameters": {kind: sum(p.numel() for p in network.parameters())},
        "runs": {kind: without_shards(card)},
    }
    folder = models / f"toy-{kind}"
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    half = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    (fresh / "model.safetensors").write_bytes(save(half))
    (fresh / "card.json").write_text(json.dumps(facts, indent=1) + "\n")
    (fresh / "README.md").write_text(network_card(facts))
    take_place(fresh, folder)
    return folder


def ship_vggt(run: Path, models: Path) -> Path:
    """Write the folder of `toy-vggt`."""
    return ship_network(
        run,
        models,
        kind="vggt",
        config=VGGT_CONFIG,
        network=VGGT(VGGTConfig(**VGGT_CONFIG)),
        more={"maps": list(VGGT_MAPS)},
    )


def ship_jepa(run: Path, models: Path) -> Path:
    """Write the folder of `toy-jepa`: the target encoder, as V-JEPA's features are read from it."""
    network = VideoViT(VideoViTConfig(**JEPA_CONFIG))
    return ship_network(
        run, models, kind="jepa", config=JEPA_CONFIG, network=network, prefix=TARGET
    )


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


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--transformer", type=Path, nargs="+", default=[])
    parser.add_argument("--vggt", type=Path)
    parser.add_argument("--jepa", type=Path)
    parser.add_argument("--samples", type=Path, help="run of explorer.toy.sample of toy-wan")
    parser.add_argument("--probes", type=Path, nargs="+", default=[], help="runs of train_probes")
    parser.add_argument(
        "--beside", action="store_true", help="add the cells to the probes that are there"
    )
    parser.add_argument("--int8", action="store_true", help="store the probes in eight bits")
    parser.add_argument(
        "--best", type=int, metavar="N", help="of other models than toy-wan only the best N cells"
    )
    parser.add_argument("--out", type=Path, required=True, help="the assets folder")
    arguments = parser.parse_args()
    os.environ["EMERGE3D_ASSETS"] = str(arguments.out.resolve())
    models = arguments.out / "models"
    runs = {model_of(run): run for run in arguments.transformer}
    bound: dict[str, str] = {}
    if "toy-wan" in runs:  # first: the others are held against its VAE
        if arguments.vae is None:
            parser.error("toy-wan is shipped with its VAE: give --vae")
        run = runs.pop("toy-wan")
        if arguments.beside and same_features(arguments.vae, run, models / "toy-wan"):
            # As their probes name them: asking the registry now would make its list of backbones
            # before those of this run are in the folder.
            shipped = list_probes(root=arguments.out / "probes")
            bound = {c.backbone: c.backbone_hash for c in shipped if c.backbone in OF_THE_VAE}
        ship_model(arguments.vae, run, models / "toy-wan", samples=arguments.samples)
    for run in runs.values():
        ship_variant(run, models)
    if arguments.vggt:
        ship_vggt(arguments.vggt, models)
    if arguments.jepa:
        ship_jepa(arguments.jepa, models)
    if arguments.probes or bound:
        renamed = {old: registry.hashes(name).weights for name, old in bound.items()}
        fresh = arguments.out / ".probes.new"
        shutil.rmtree(fresh, ignore_errors=True)
        ship_probes(
            arguments.probes,
            fresh,
            storage="int8" if arguments.int8 else "float16",
            best=arguments.best,
            beside=arguments.out / "probes" if arguments.beside else None,
            renamed=renamed,
        )
        take_place(fresh, arguments.out / "probes")


if __name__ == "__main__":
    main()
