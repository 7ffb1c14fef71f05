"""The shipped models and what they say of themselves: folders, cards, hashes. Needs no torch.

Each is a folder in assets/models with card.json. `toy-wan` has vae/, transformer/ and scheduler/ in
diffusers' layout. Its variants have transformer/ alone: their card names the model whose VAE they
were trained on, {"vae": {"model": "toy-wan", "sha256": ...}}, and are refused on any other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer.assets import assets_root
from explorer.backbones import _files
from explorer.backbones.base import BackboneCard, Hashes, hash_arrays
from explorer.errors import BackboneError, EmergeError
from explorer.noise import FlowSchedule
from explorer.toy.config import FLOW_SHIFT, FRAMES, HEIGHT, VARIANTS, WIDTH, Variant

TOKEN_GRID = (18, 32)
FRAME_STEP = 4
SCHEDULE = FlowSchedule(FLOW_SHIFT)
TAPS = ("block", "query", "key")
VAE_PARAMETERS = 1_881_427


def folder(name: str) -> Path:
    """Where a shipped model is."""
    return assets_root() / "models" / name


def facts(name: str) -> dict[str, Any]:
    """What the training wrote: data, steps, seconds, loss, trained; empty where it is missing."""
    try:
        card: dict[str, Any] = json.loads((folder(name) / "card.json").read_text())
    except (OSError, ValueError, EmergeError):
        return {}
    return card


def is_trained(name: str) -> bool:
    """Whether the shipped weights have seen any training."""
    return bool(facts(name).get("trained", False))


def is_shipped(name: str) -> bool:
    """Whether there is such a model in the assets."""
    return bool(facts(name))


def vae_folder(name: str) -> Path:
    """The VAE whose latents a model reads: its own, or the one that its card names.

    Raises:
        BackboneError: the card names none, or the VAE there is not the one of its training.
    """
    own = folder(name) / "vae"
    if own.is_dir() or name == "toy-wan":
        return own
    named = facts(name).get("vae")
    if not isinstance(named, dict):
        raise BackboneError(
            f"{folder(name) / 'card.json'} names no VAE: restore assets/models from the repository"
        )
    shared = folder(str(named["model"])) / "vae"
    found = _files.files_hash(shared)
    if found != named["sha256"]:
        raise BackboneError(
            f"{name} was trained on the VAE {str(named['sha256'])[:12]}; {shared} holds "
            f"{found[:12]}: restore assets/models from the repository"
        )
    return shared


def encoder_hash(name: str) -> str:
    """sha256 over the VAE's files, and whether frames pass it alone.

    Raises:
        BackboneError: a file is missing.
    """
    found = _files.files_hash(vae_folder(name))
    if name in VARIANTS and VARIANTS[name].frames_alone:
        return hash_arrays([], f"each slot's frame alone, VAE {found}")
    return found


def hashes(name: str) -> Hashes:
    """sha256 over the files of VAE and transformer, and over the VAE's alone.

    Raises:
        BackboneError: a file is missing.
    """
    files = _files.files_hash(vae_folder(name), folder(name) / "transformer")
    if VARIANTS[name].frames_alone:
        files = hash_arrays([], f"each slot's frame alone, {files}")
    return Hashes(files, encoder_hash(name))


def random_hashes(name: str, *, of: str, seed: int, recipe: int) -> Hashes:
    """Random weights follow from seed, recipe and configuration, so these stand for them.

    Args:
        name: of the control; "random" is older than names in this recipe.
        of: the model whose shape and VAE it has.
        seed: of the weights.
        recipe: version of how they are made.

    Raises:
        BackboneError: a file is missing.
    """
    encoder = encoder_hash(of)
    config = _files.transformer_config(folder(of) / "transformer")
    text = json.dumps(config, sort_keys=True)
    prefix = "" if name == "random" else f"{name}, "
    whole = f"{prefix}untrained {recipe}, seed {seed}, {text}, VAE {encoder}"
    return Hashes(hash_arrays([], whole), encoder)


def card(
    variant: Variant, *, id: str | None = None, title: str = "", kind: str = "", note: str = ""
) -> BackboneCard:
    """The card of a transformer on toy-wan's VAE.

    Args:
        variant: its shape.
        id: another than the variant's name: the card of a control of its shape.
        title: of a control.
        kind: of a control.
        note: of a control.
    """
    untrained = "" if is_trained("toy-wan" if id else variant.name) else " (untrained weights)"
    kinds = {True: "image diffusion", False: "video diffusion"}
    return BackboneCard(
        id=id or variant.name,
        title=(title or variant.title) + untrained,
        kind=kind or kinds[variant.frames_alone],
        licence="Apache-2.0",
        layers=variant.layers,
        width=variant.width,
        input_size=(HEIGHT, WIDTH),
        max_frames=FRAMES,
        frame_step=FRAME_STEP,
        token_grid=TOKEN_GRID,
        default_cell=(5, 0.3),
        uses_sigma=True,
        parameters=VAE_PARAMETERS + variant.parameters,
        memory_bytes=(700 if variant.width < 256 else 900) * 2**20,
        taps=TAPS,
        note=note or variant.note,
    )


def pixel_hashes(name: str) -> Hashes:
    """sha256 over configuration and weights of a model that sees the frames themselves.

    Raises:
        BackboneError: a file is missing.
    """
    return Hashes(_files.files_hash(folder(name)), None)


def pixel_card(name: str, **facts: Any) -> BackboneCard:
    """The card of a model that sees the frames themselves, without noise.

    Args:
        name: of its folder.
        facts: what is its own: title, kind, layers, width, default layer, ...
    """
    return BackboneCard(
        id=name,
        licence="Apache-2.0",
        input_size=(HEIGHT, WIDTH),
        max_frames=FRAMES,
        frame_step=FRAME_STEP,
        token_grid=TOKEN_GRID,
        uses_sigma=False,
        **facts,
    )
