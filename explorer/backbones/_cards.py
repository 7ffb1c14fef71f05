"""A card for weights of another size than the published ones. Needs no torch."""

from __future__ import annotations

from dataclasses import replace

from explorer.backbones.base import BackboneCard


def resized(
    card: BackboneCard,
    *,
    layers: int,
    width: int,
    parameters: int,
    vae_parameters: int = 0,
    patch: int | None = None,
    input_size: tuple[int, int] | None = None,
    frame_step: int | None = None,
    max_frames: int | None = None,
    default_layer: int | None = None,
) -> BackboneCard:
    """The card with the sizes of the weights at hand.

    Args:
        card: of the published size.
        layers: number of blocks.
        width: channels of a token; activations grow with it.
        parameters: number of weights in memory together.
        vae_parameters: of these, the VAE's; its activations grow with their root, as channels do.
        patch: side of a token in pixels; None keeps the card's grid.
        input_size: (height, width); None keeps the card's.
        frame_step: latent time; None keeps the card's.
        max_frames: most in one pass; None keeps the card's.
        default_layer: shown first; None keeps the card's where there is one of that number.
    """
    smaller = vae_parameters / card.vae_parameters if card.vae_parameters else 1
    size = input_size or card.input_size
    grid = card.token_grid if patch is None else (size[0] // patch, size[1] // patch)
    layer, sigma = card.default_cell
    return replace(
        card,
        layers=layers,
        width=width,
        input_size=size,
        token_grid=grid,
        frame_step=frame_step or card.frame_step,
        max_frames=max_frames or card.max_frames,
        parameters=parameters,
        vae_parameters=vae_parameters,
        working_bytes=card.working_bytes * width // card.width,
        vae_working_bytes=round(card.vae_working_bytes * smaller**0.5),
        vae_pass_bytes=round(card.vae_pass_bytes * smaller**0.5),
        default_cell=(min(layer, layers - 1) if default_layer is None else default_layer, sigma),
    )
