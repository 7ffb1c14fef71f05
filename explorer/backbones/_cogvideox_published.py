"""CogVideoX's published folders: card, hashes, loading, and a tiny folder of the same layout."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _published
from explorer.backbones._cogvideox_frames import Recipe
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    import torch

    from explorer.backbones._cogvideox import CogVideoXBackbone
    from explorer.noise import Schedule

LAYOUT = "a CogVideoX repository in diffusers' format (transformer/, vae/)"
TEXT_TOKENS = 226
TEXT_ENCODER = f"t5-xxl-{TEXT_TOKENS}"


def hashes(target: Target, *, recipe: Recipe) -> Hashes:
    """Fingerprints of transformer and VAE; the text encoder counts through the prompt."""
    found = _published.component_hashes(
        target, what=LAYOUT, network=("transformer",), encoder="vae"
    )
    return Hashes(mixed(found.weights, recipe.name), mixed(str(found.encoder), recipe.latents_name))


def mixed(digest: str, text: str) -> str:
    """A hash that also depends on how a model is used."""
    return hashlib.sha256(f"{digest} {text}".encode()).hexdigest()


def adapt(card: BackboneCard, folder: Path, *, recipe: Recipe) -> BackboneCard:
    """The card of the weights in a folder: sizes from their configurations.

    Raises:
        BackboneError: a part is missing or broken, or takes other inputs than this backbone gives.
    """
    return adapted(card, folder, folder, recipe=recipe, videos=1 + recipe.first_frame)


def adapted(
    card: BackboneCard, folder: Path, shared: Path, *, recipe: Recipe, videos: int, rays: int = 0
) -> BackboneCard:
    """The card of a transformer in one folder and a VAE in another.

    Args:
        card: of the published size.
        folder: holds the transformer.
        shared: holds the VAE.
        recipe: how the model is shown a clip.
        videos: how many videos the transformer takes, noisy ones and conditions.
        rays: further channels that it takes.

    Raises:
        BackboneError: a part is missing or broken, or takes other inputs than this backbone gives.
    """
    config = _published.config_of(folder, "transformer", what=LAYOUT)
    vae = _published.config_of(shared, "vae", what=LAYOUT)
    if config.get("patch_size_t") is not None:
        raise BackboneError(
            f"{folder} holds a CogVideoX 1.5, whose tokens span two latent frames: {card.id} takes "
            f"the models of the first series, {card.source.repo if card.source else ''}"
        )
    expected = videos * vae["latent_channels"] + rays
    if config["in_channels"] != expected:
        raise BackboneError(
            f"the transformer in {folder} takes {config['in_channels']} channels; {card.id} gives "
            f"{expected}: models from text take 16, from a first frame 32, Aether 96"
        )
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    size = config["sample_height"], config["sample_width"]
    parts = ((folder, "transformer"), (shared, "vae"))
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return replace(
        card,
        layers=config["num_layers"],
        width=width,
        input_size=(size[0] * scale, size[1] * scale),
        working_bytes=card.working_bytes * width // card.width,
        token_grid=(size[0] // config["patch_size"], size[1] // config["patch_size"]),
        frame_step=recipe.frame_step,
        parameters=_published.count_parameters(
            [
                path
                for place, part in parts
                for path in _published.component(place, part, what=LAYOUT)[1:]
            ]
        ),
        default_cell=(min(card.default_cell[0], config["num_layers"] - 1), card.default_cell[1]),
    )


def load(
    card: BackboneCard, target: Target, *, schedule: Schedule, recipe: Recipe
) -> CogVideoXBackbone:
    """VAE, transformer and the prompt's embedding.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _cogvideox

    found = hashes(target, recipe=recipe)
    transformer = load_transformer(target, target.folder)
    if transformer.config.use_learned_positional_embeddings:
        _cogvideox.read_learned_positions(transformer)
    return _cogvideox.CogVideoXBackbone(
        card,
        load_vae(target, target.folder),
        transformer,
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        schedule=schedule,
        prompt=prompt(target.folder, target.prompt).to(target.device),
        recipe=recipe,
    )


def load_transformer(target: Target, folder: Path) -> Any:
    """The transformer of a folder, on its device in its dtype."""
    import diffusers

    from explorer.backbones import _build

    library: Any = diffusers
    model_class = library.CogVideoXTransformer3DModel
    config, *files = _published.component(folder, "transformer", what=LAYOUT)
    settings = json.loads(config.read_text())
    network = _build.build_empty(
        lambda: model_class.from_config(settings),
        lambda: model_class.from_config({**settings, "num_layers": 0}),
    )
    return _build.fill(
        network,
        _build.shards(files),
        device=target.device,
        dtype=target.dtype,
        where=config.parent,
        offload=target.offload,
    )


def load_vae(target: Target, folder: Path) -> Any:
    """The VAE of a folder, tiling if that is asked for."""
    import diffusers

    from explorer.backbones import _build

    library: Any = diffusers
    config, *files = _published.component(folder, "vae", what=LAYOUT)
    settings = json.loads(config.read_text())
    vae = _build.fill(
        _build.build_empty(lambda: library.AutoencoderKLCogVideoX.from_config(settings)),
        _build.shards(files),
        device=target.device,
        dtype=target.vae_dtype,
        where=config.parent,
    )
    if target.vae_tiling:
        vae.enable_tiling()
    return vae


def prompt(folder: Path, text: str) -> torch.Tensor:
    """(1, 226, D) embedding of a prompt, padding included, as CogVideoX's pipeline makes it.

    Raises:
        BackboneError: it is not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        import torch

        _prompt.text_tools(folder, "CogVideoX")
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder / "tokenizer", local_files_only=True
        )
        encoder = transformers.T5EncoderModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, dtype=torch.bfloat16
        )
        words = tokenizer(
            [text],
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            return {"prompt": encoder(words.input_ids).last_hidden_state}

    return _prompt.embeddings(TEXT_ENCODER, text, folder=folder, compute=compute)["prompt"]


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny CogVideoX in the published layout.

    `changes` go into the transformer's configuration.
    """
    import diffusers
    import torch
    from safetensors.torch import save_file

    from explorer.backbones import _prompt, _tiny

    library: Any = diffusers
    generator = torch.Generator().manual_seed(0)
    vae = library.AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        # Tiles of 48 and 40 pixels, whose overlaps are whole latents.
        sample_height=96,
        sample_width=80,
        scaling_factor=0.7,
    )
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 8,
        "text_embed_dim": 16,
        "num_layers": 4,
        "sample_height": 8,
        "sample_width": 12,
        **changes,
    }
    transformer = library.CogVideoXTransformer3DModel(**settings)
    for name, model in (("vae", vae), ("transformer", transformer)):
        _tiny.randomize(model, generator)
        if settings.get("use_learned_positional_embeddings") and name == "transformer":
            model.patch_embed.pos_embedding.normal_(generator=generator)
        model.save_pretrained(folder / name)
    (folder / "prompts").mkdir(parents=True)
    embedding = torch.randn(1, TEXT_TOKENS, settings["text_embed_dim"], generator=generator)
    save_file({"prompt": embedding}, folder / "prompts" / _prompt.prompt_file(TEXT_ENCODER, ""))
