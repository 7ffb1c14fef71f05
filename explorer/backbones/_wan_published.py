"""Wan's published folders: card, hashes, loading, and a tiny folder of the same layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _published
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes

if TYPE_CHECKING:
    import torch

    from explorer.backbones._wan import WanBackbone
    from explorer.noise import Schedule

LAYOUT = "a Wan repository in diffusers' format (transformer/, vae/)"
TEXT_ENCODER = "umt5-xxl"
TEXT_TOKENS = 512


def hashes(target: Target, network: tuple[str, ...] = ("transformer",)) -> Hashes:
    """Fingerprints of the network's parts and the VAE; the text encoder counts by the prompt."""
    return _published.component_hashes(target, what=LAYOUT, network=network, encoder="vae")


def adapt(
    card: BackboneCard, folder: Path, parts: tuple[str, ...] = ("transformer", "vae")
) -> BackboneCard:
    """The card of the weights in a folder: sizes from their configurations.

    Args:
        card: of the published model.
        folder: with weights of it, or of another size.
        parts: whose weights are counted, those that are in memory together.

    Raises:
        BackboneError: a part is missing or broken.
    """
    config = _published.config_of(folder, "transformer", what=LAYOUT)
    vae = _published.config_of(folder, "vae", what=LAYOUT)
    patch = config["patch_size"][1] * vae.get("scale_factor_spatial", 8)
    rows, columns = (size // patch for size in card.input_size)
    files = [path for part in parts for path in _published.component(folder, part, what=LAYOUT)[1:]]
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return replace(
        card,
        layers=config["num_layers"],
        width=width,
        working_bytes=card.working_bytes * width // card.width,
        token_grid=(rows, columns),
        frame_step=vae.get("scale_factor_temporal", 4),
        parameters=_published.count_parameters(files),
        default_cell=(min(card.default_cell[0], config["num_layers"] - 1), card.default_cell[1]),
    )


def load(
    card: BackboneCard,
    target: Target,
    *,
    schedule: Schedule,
    make: Callable[..., WanBackbone] | None = None,
) -> WanBackbone:
    """VAE, transformer and the prompt's embedding.

    Args:
        card: of the folder's weights.
        target: with the folder.
        schedule: the model's noise.
        make: a class like `WanBackbone`, which is the default.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _build, _wan

    folder, found = target.folder, hashes(target)
    return (make or _wan.WanBackbone)(
        card,
        load_vae(target),
        load_transformer(target, "transformer"),
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        trained=True,
        schedule=schedule,
        prompt=_build.offered(prompt(folder, target.prompt), target.device),
    )


def load_transformer(target: Target, part: str) -> Any:
    """One transformer of a folder, on its device in its dtype."""
    from diffusers import WanTransformer3DModel

    from explorer.backbones import _build

    config, *files = _published.component(target.folder, part, what=LAYOUT)
    settings = _settings(config)
    network = _build.build_empty(
        lambda: _make(WanTransformer3DModel, settings),
        lambda: _make(WanTransformer3DModel, {**settings, "num_layers": 0}),
    )
    # Published files hold some weights that no released model uses (`norm_added_q`).
    unused = tuple(getattr(network, "_keys_to_ignore_on_load_unexpected", None) or ())
    return _build.fill(
        network,
        (pair for pair in _build.shards(files) if not any(word in pair[0] for word in unused)),
        device=target.device,
        dtype=target.dtype,
        where=config.parent,
        offload=target.offload,
    )


def load_vae(target: Target) -> Any:
    """The VAE of a folder, on its device in its own dtype."""
    from diffusers import AutoencoderKLWan

    from explorer.backbones import _build

    config, *files = _published.component(target.folder, "vae", what=LAYOUT)
    settings = _settings(config)
    vae = _build.fill(
        _build.build_empty(lambda: _make(AutoencoderKLWan, settings), None),
        _build.shards(files),
        device=target.device,
        dtype=target.vae_dtype,
        where=config.parent,
    )
    if target.device.startswith("cuda") and target.vae_dtype != "float32":
        _build.channels_last(vae)
    if target.vae_tiling:
        vae.enable_tiling()
    return vae


def _settings(config: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(config.read_text())
    return settings


def _make(model_class: Any, settings: dict[str, Any]) -> Any:
    return model_class.from_config(settings)


def prompt(folder: Path, text: str) -> torch.Tensor:
    """(1, 512, D) embedding of a prompt, zeros after its last token, as Wan's pipeline makes it.

    Raises:
        BackboneError: it is not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        import torch

        _prompt.text_tools(folder, "Wan")
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder / "tokenizer", local_files_only=True
        )
        encoder = transformers.UMT5EncoderModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, dtype=torch.bfloat16
        )
        words = tokenizer(
            [text],
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden = encoder(words.input_ids, words.attention_mask).last_hidden_state
        return {"prompt": hidden * words.attention_mask[..., None]}

    return _prompt.embeddings(TEXT_ENCODER, text, folder=folder, compute=compute)["prompt"]


def write_tiny(
    folder: Path,
    *,
    transformers: tuple[str, ...] = ("transformer",),
    vae: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    """Random weights of a tiny Wan in the published layout.

    Args:
        folder: gets the parts.
        transformers: parts that are transformers.
        vae: what its VAE has different from Wan 2.1's.
        changes: what its transformers have different.
    """
    import torch
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from safetensors.torch import save_file

    from explorer.backbones import _prompt, _tiny

    library: Any = (AutoencoderKLWan, WanTransformer3DModel)
    generator = torch.Generator().manual_seed(0)
    encoder: dict[str, Any] = {
        "base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "latents_mean": [0.1, -0.2, 0.0, 0.3],
        "latents_std": [1.0, 0.8, 1.2, 0.9],
        **(vae or {}),
    }
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 16,
        "freq_dim": 16,
        "ffn_dim": 48,
        "num_layers": 4,
        "rope_max_seq_len": 64,
        **changes,
    }
    for name in ("vae", *transformers):
        model = library[0](**encoder) if name == "vae" else library[1](**settings)
        _tiny.randomize(model, generator)
        model.save_pretrained(folder / name)
    (folder / "prompts").mkdir(parents=True)
    embedding = torch.zeros(1, TEXT_TOKENS, settings["text_dim"])
    embedding[:, 0] = torch.randn(settings["text_dim"], generator=generator)
    save_file({"prompt": embedding}, folder / "prompts" / _prompt.prompt_file(TEXT_ENCODER, ""))
