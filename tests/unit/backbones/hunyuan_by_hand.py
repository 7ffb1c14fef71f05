"""What the adapters of the Hunyuan VAE are compared with, written out without them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from explorer.clip import Clip

GRID = (4, 6)
SIZE = (64, 96)
SCALING = 0.476986
VAE_SETTINGS: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": (4, 4, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
}


def small(backbone: Any) -> Any:
    """The same loaded model for pictures of 64 x 96."""
    smaller = copy.copy(backbone)
    smaller.card = dataclasses.replace(backbone.card, input_size=SIZE, token_grid=GRID)
    return smaller


def plain_vae(*files: Path) -> Any:
    """The VAE as diffusers makes it, with all tensors of the files under their own names."""
    import diffusers

    library: Any = diffusers
    vae = library.AutoencoderKLHunyuanVideo(**VAE_SETTINGS)
    state = {name: value for path in files for name, value in load_file(path).items()}
    vae.load_state_dict(state, strict=True)
    return vae.eval()


def pixels(clip: Clip) -> torch.Tensor:
    """(1, 3, T, H, W) in [-1, 1]."""
    frames = torch.from_numpy(clip.frames.astype(np.float32))
    return (frames / 127.5 - 1).permute(3, 0, 1, 2)[None]


@torch.no_grad()
def encode(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Scaled posterior mean of all frames and pixels at once."""
    moments = vae.quant_conv(vae.encoder(video))
    return moments.chunk(2, dim=1)[0] * SCALING


def mix(latents: torch.Tensor, sigma: float, seed: int) -> torch.Tensor:
    """Flow matching with noise of a seed."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    return (1 - sigma) * latents + sigma * noise


@contextmanager
def recorded(blocks: list[Any]) -> Iterator[list[Any]]:
    """What the blocks return, in the order in which they ran."""
    found: list[Any] = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output: found.append(output))
        for block in blocks
    ]
    yield found
    for handle in handles:
        handle.remove()


def check_half_precision(backbone: Any, half: Any, clip: Clip, *, sigma: float) -> None:
    """bfloat16 may cost bits of the features, but must tell the network the same numbers."""
    layer = backbone.card.layers - 1
    exact, rounded = (
        each.extract(clip, layers=[layer], sigma=sigma)[layer].values.astype(np.float64)
        for each in (backbone, half)
    )
    assert half.dtype == torch.bfloat16
    assert 0 < np.abs(exact - rounded).max() < 0.15 * exact.std()


def break_file(path: Path, how: str) -> None:
    """Leave out the last tensor of a file, add one, or change its shape."""
    state = load_file(path)
    name = sorted(state)[-1]
    if how == "missing":
        del state[name]
    elif how == "unexpected":
        state["stranger"] = torch.zeros(2)
    else:
        state[name] = torch.zeros(*state[name].shape, 2)
    save_file(state, path)


def write_tokenizer(folder: Path, words: list[str], *, chat: str | None = None) -> None:
    """A tokenizer that knows a few words and ends every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=chat,
    ).save_pretrained(folder)
