"""Whether a model fits, before anything of it is read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.backbones._options import Target
from explorer.backbones._weights import size_text
from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.backbones.base import BackboneCard

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
OFFLOADED_SHARE = 0.15
"""Of the weights, that are on the device at once when blocks take turns."""


def needed(card: BackboneCard, target: Target, *, roomy: bool = False) -> int:
    """Bytes on the device for the weights and the activations of one pass of a full clip.

    The VAE has a precision of its own and stays on the device; it is done before the network
    begins, so that of their activations the larger counts.

    Args:
        card: of the model.
        target: how it is loaded.
        roomy: what is taken where more is free, instead of the least.
    """
    network = card.parameters - card.vae_parameters
    weights = network * ITEM_BYTES[target.dtype]
    if target.offload and not target.device.startswith("cpu"):
        weights = int(OFFLOADED_SHARE * weights)
    vae = card.vae_parameters * ITEM_BYTES[target.vae_dtype]
    working = card.working_bytes * ITEM_BYTES[target.dtype] // 2
    encoding = card.vae_working_bytes * ITEM_BYTES[target.vae_dtype] // 4
    if target.vae_tiling and _has_video_vae(card):
        encoding //= 2
    elif roomy and target.vae_dtype != "float32":
        encoding = max(encoding, card.vae_pass_bytes)
    return weights + vae + max(working, encoding)


def with_need(card: BackboneCard) -> BackboneCard:
    """The card of a published model with what it needs in the usual precision."""
    if card.source is None:
        return card
    return replace(card, memory_bytes=needed(card, Target(dtype="bfloat16")))


def kept_in_host_memory(card: BackboneCard, target: Target) -> int:
    """Bytes of weights that wait in host memory for their turn on a GPU."""
    if not target.offload or target.device.startswith("cpu"):
        return 0
    return (card.parameters - card.vae_parameters) * ITEM_BYTES[target.dtype]


def _has_video_vae(card: BackboneCard) -> bool:
    # Encoders have none, and a VAE of single frames has nothing to gain from tiles.
    return card.vae_parameters > 0 and card.frame_step > 1


def free(device: str) -> int:
    """Bytes that can be had on a device; on a GPU with those that torch holds and does not use."""
    if device.startswith("cpu"):
        import psutil

        return int(psutil.virtual_memory().available)
    import torch

    place = torch.device(device)
    unused = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return int(torch.cuda.mem_get_info(place)[0] + unused)


def check_memory(card: BackboneCard, target: Target) -> None:
    """Refuse to load what does not fit.

    Raises:
        BackboneError: what is needed, what is free, and which option would fit.
    """
    need, have = needed(card, target), free(target.device)
    if need <= have:
        _check_host(card, target)
        return
    tried = [(" ".join(("--dtype bfloat16", *words)), other) for words, other in _options(target)]
    fits = [
        f"{text} needs {size_text(needed(card, other))}"
        for text, other in tried
        if needed(card, other) <= have
        and needed(card, other) < need
        and kept_in_host_memory(card, other) <= (free("cpu") if other.offload else 0)
    ]
    advice = fits[0] if fits else "no option makes it fit here: take a smaller model"
    raise BackboneError(
        f"{card.id} needs about {size_text(need)} on {target.device} in {target.dtype}; "
        f"{size_text(have)} are free: {advice}"
    )


def check_dtypes(target: Target) -> None:
    """Refuse a precision that there is not.

    Raises:
        BackboneError: with those that there are.
    """
    for dtype in (target.dtype, target.vae_dtype):
        if dtype not in ITEM_BYTES:
            raise BackboneError(f"dtype {dtype!r} is unknown: choose {', '.join(ITEM_BYTES)}")


def is_shortage(error: Exception) -> bool:
    """Whether an error says that memory has run out, which torch says in several ways."""
    words = ("out of memory", "not enough memory", "allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def shortage(card: BackboneCard) -> BackboneError:
    """The error where memory ran out although there seemed to be enough."""
    return BackboneError(
        f"{card.id} ran out of memory: `emerge3d backbones {card.id}` lists the options that need "
        "less, and a shorter clip needs less too"
    )


def choices(card: BackboneCard, device: str) -> list[tuple[str, int]]:
    """(options, need in bytes) of one full clip on a device: what each option saves, most first."""
    full = Target(device=device)
    found = [("--dtype float32", needed(card, full))]
    for words, target in _options(full):
        need = needed(card, target)
        if need < found[-1][1]:
            found.append((" ".join(("--dtype bfloat16", *words)), need))
    return found


def _options(target: Target) -> list[tuple[tuple[str, ...], Target]]:
    """Ways to need less, those that change least first."""
    half = replace(target, dtype="bfloat16")
    vae = replace(half, vae_dtype="bfloat16")
    ways = [
        ((), half),
        (("--vae-dtype bfloat16",), vae),
        (("--vae-tiling",), replace(half, vae_tiling=True)),
        (("--vae-dtype bfloat16", "--vae-tiling"), replace(vae, vae_tiling=True)),
    ]
    if not target.device.startswith("cpu"):
        ways += [(("--offload", *words), replace(way, offload=True)) for words, way in ways]
    return ways


def _check_host(card: BackboneCard, target: Target) -> None:
    """Refuse offloading where the weights do not fit beside everything else that runs here."""
    kept = kept_in_host_memory(card, target)
    if not kept:
        return
    have = free("cpu")
    if kept <= have:
        return
    smaller = kept_in_host_memory(card, replace(target, dtype="bfloat16"))
    fits = smaller < kept and smaller <= have
    advice = (
        f"--dtype bfloat16 keeps {size_text(smaller)}"
        if fits
        else "leave --offload out on a GPU that holds it, or take a smaller model"
    )
    raise BackboneError(
        f"{card.id} keeps about {size_text(kept)} of weights in host memory with --offload in "
        f"{target.dtype}; {size_text(have)} are free: {advice}"
    )


def check_text_encoder(what: str, need: int) -> None:
    """Refuse to embed a prompt where the text encoder, which runs on the CPU, does not fit.

    Raises:
        BackboneError: what is needed, what is free, and what to do instead.
    """
    have = free("cpu")
    if need > have:
        raise BackboneError(
            f"the text encoder of {what} needs about {size_text(need)} of host memory once, and "
            f"{size_text(have)} are free: close something, or embed the prompt on another machine "
            "and put it into the weights' folder prompts/"
        )
