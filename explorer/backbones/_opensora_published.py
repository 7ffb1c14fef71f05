"""Open-Sora 2.0's published folder: card, hashes, loading, and a tiny folder of the same layout.

    Open_Sora_v2.safetensors        the transformer
    hunyuan_vae.safetensors         the VAE
    google/t5-v1_1-xxl              text encoders, needed once for each prompt
    openai/clip-vit-large-patch14

There is no configuration: the released sizes are the defaults of the two networks. A folder of
another size states them in `sizes.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _cards, _prompt_files, _published
from explorer.backbones._options import Target
from explorer.backbones._prompt_files import TextEncoder
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    import torch

    from explorer.backbones._opensora import OpenSoraBackbone
    from explorer.noise import Schedule

TRANSFORMER = "Open_Sora_v2.safetensors"
VAE = "hunyuan_vae.safetensors"
SIZES = "sizes.json"
T5 = "google/t5-v1_1-xxl"
CLIP = "openai/clip-vit-large-patch14"
TEXT_TOKENS = 512
CLIP_TOKENS = 77
TEXT = TextEncoder(f"t5-v1_1-xxl-{TEXT_TOKENS}-clip-l", "hpcai-tech/Open-Sora-v2", (T5, CLIP))


def hashes(target: Target) -> Hashes:
    """Fingerprints of transformer, VAE and where the prompt's embeddings come from.

    Raises:
        BackboneError: a file is missing.
    """
    sizes = target.folder / SIZES
    stated = [sizes] if sizes.is_file() else []
    return _published.file_hashes(
        target,
        network=[_file(target.folder, TRANSFORMER), *stated],
        encoder=[_file(target.folder, VAE), *stated],
        prompt=_prompt_files.origin(TEXT, target.folder, target.prompt),
    )


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder.

    Raises:
        BackboneError: a file is missing or broken.
    """
    transformer, vae = (
        _published.count_parameters([_file(folder, name)]) for name in (TRANSFORMER, VAE)
    )
    sizes = _sizes(folder)["transformer"]
    return _cards.resized(
        card,
        layers=sizes.get("depth", 19) + sizes.get("depth_single_blocks", 38),
        width=sizes.get("hidden_size", card.width),
        parameters=transformer + vae,
        vae_parameters=vae,
    )


def load(card: BackboneCard, target: Target, *, schedule: Schedule) -> OpenSoraBackbone:
    """VAE, transformer and the prompt's embeddings.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _build, _hunyuan_vae, _opensora
    from explorer.nets.mmdit import MMDiT, MMDiTConfig

    folder, found = target.folder, hashes(target)
    sizes = _sizes(folder)
    texts = prompt(folder, target.prompt)
    vae = _hunyuan_vae.load_vae(target, [_file(folder, VAE)], sizes["vae"])
    config = MMDiTConfig.from_dict(sizes["transformer"])
    transformer = _build.fill(
        _build.build_empty(lambda: MMDiT(config)),
        _build.shards([_file(folder, TRANSFORMER)]),
        device=target.device,
        dtype=target.dtype,
        where=folder,
        offload=target.offload,
    )
    return _opensora.OpenSoraBackbone(
        card,
        vae,
        transformer,
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        schedule=schedule,
        prompt={name: text.to(target.device) for name, text in texts.items()},
    )


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise BackboneError(
            f"there is no {name} in {folder}: --weights needs a folder laid out like "
            "hpcai-tech/Open-Sora-v2"
        )
    return path


def _sizes(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / SIZES
    if not path.is_file():
        return {"transformer": {}, "vae": {}}
    try:
        sizes: dict[str, dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read ({error}): write it again") from None
    return sizes


def prompt(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """`text` (1, 512, D) T5 states, padding included, and `pooled` (1, V) of CLIP.

    Raises:
        BackboneError: they are not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        from explorer.backbones import _text_models

        # no token is masked, as in Open-Sora
        t5, clip = folder / T5, folder / CLIP
        states, _ = _text_models.embed("T5EncoderModel", t5, t5, text, TEXT_TOKENS)
        pooled, _ = _text_models.embed("CLIPTextModel", clip, clip, text, CLIP_TOKENS)
        return {"text": states.last_hidden_state, "pooled": pooled.pooler_output}

    return _prompt.embeddings(TEXT, text, folder=folder, compute=compute)


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny model in the published layout; `changes` go to the transformer."""
    import torch
    from safetensors.torch import save_file

    from explorer.backbones import _hunyuan_vae, _tiny
    from explorer.nets.mmdit import MMDiT, MMDiTConfig

    generator = torch.Generator().manual_seed(0)
    sizes: dict[str, Any] = {
        "in_channels": 4 * _hunyuan_vae.TINY["latent_channels"],
        "vec_in_dim": 8,
        "context_in_dim": 16,
        "hidden_size": 24,
        "num_heads": 2,
        "depth": 2,
        "depth_single_blocks": 3,
        "axes_dim": [4, 4, 4],
        "mlp_ratio": 2.0,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SIZES).write_text(json.dumps({"transformer": sizes, "vae": _hunyuan_vae.TINY}))
    networks: dict[str, Any] = {
        TRANSFORMER: MMDiT(MMDiTConfig.from_dict(sizes)),
        VAE: _hunyuan_vae.make(_hunyuan_vae.TINY),
    }
    for name, network in networks.items():
        _tiny.randomize(network, generator)
        save_file(network.state_dict(), folder / name)
    texts = {
        "text": torch.randn(1, TEXT_TOKENS, sizes["context_in_dim"], generator=generator),
        "pooled": torch.randn(1, sizes["vec_in_dim"], generator=generator),
    }
    _tiny.write_prompt(TEXT, folder, texts)
