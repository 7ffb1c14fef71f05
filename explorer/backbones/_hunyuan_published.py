"""HunyuanVideo's published folder: card, hashes, loading, and a tiny folder of the same layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _published
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    import torch

    from explorer.backbones._hunyuan import HunyuanBackbone
    from explorer.noise import Schedule

LAYOUT = "hunyuanvideo-community/HunyuanVideo (transformer/, vae/)"
TEXT_ENCODER = "llava-llama-3-8b-256-clip-l"
TEXT_TOKENS = 256
CLIP_TOKENS = 77
# What the text encoder is asked, as the model was trained; its first tokens are dropped again.
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "Describe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the "
    "objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
TEMPLATE_TOKENS = 95
HIDDEN_STATE = -3


def hashes(target: Target) -> Hashes:
    """Fingerprints of transformer and VAE; the text encoders count through the prompt."""
    return _published.component_hashes(target, what=LAYOUT, network=("transformer",), encoder="vae")


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder: sizes from their configurations.

    Raises:
        BackboneError: a part is missing or broken, or the model needs an image.
    """
    config = _published.config_of(folder, "transformer", what=LAYOUT)
    vae = _published.config_of(folder, "vae", what=LAYOUT)
    if config.get("image_condition_type") is not None:
        raise BackboneError(
            f"{folder} holds an image-to-video model; {card.id} is text to video: "
            f"take {card.source.repo if card.source else LAYOUT}"
        )
    patch = config["patch_size"] * vae.get("spatial_compression_ratio", 8)
    rows, columns = (size // patch for size in card.input_size)
    layers = config["num_layers"] + config["num_single_layers"]
    width = config["num_attention_heads"] * config["attention_head_dim"]
    files = [
        path
        for part in ("transformer", "vae")
        for path in _published.component(folder, part, what=LAYOUT)[1:]
    ]
    return replace(
        card,
        layers=layers,
        width=width,
        working_bytes=card.working_bytes * width // card.width,
        token_grid=(rows, columns),
        frame_step=vae.get("temporal_compression_ratio", 4),
        parameters=_published.count_parameters(files),
        default_cell=(min(card.default_cell[0], layers - 1), card.default_cell[1]),
    )


def load(card: BackboneCard, target: Target, *, schedule: Schedule) -> HunyuanBackbone:
    """VAE, transformer and the prompt's embeddings.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _build, _hunyuan, _hunyuan_vae

    folder, found = target.folder, hashes(target)
    texts = prompt(folder, target.prompt)
    config, *files = _published.component(folder, "vae", what=LAYOUT)
    vae = _hunyuan_vae.load_vae(target, files, json.loads(config.read_text()))
    return _hunyuan.HunyuanBackbone(
        card,
        vae,
        load_transformer(target),
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        schedule=schedule,
        prompt={name: _build.offered(text, target.device) for name, text in texts.items()},
    )


def load_transformer(target: Target) -> Any:
    """The transformer of a folder, on its device in its dtype.

    Raises:
        BackboneError: it is missing, broken or of another structure.
    """
    import diffusers

    from explorer.backbones import _build

    config, *files = _published.component(target.folder, "transformer", what=LAYOUT)
    settings = json.loads(config.read_text())
    library: Any = diffusers
    return _build.fill(
        _build.build_empty(lambda: library.HunyuanVideoTransformer3DModel.from_config(settings)),
        _build.shards(files),
        device=target.device,
        dtype=target.dtype,
        where=config.parent,
        offload=target.offload,
    )


def prompt(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """`text` (1, 256, D) Llama states, `mask` (1, 256) of them, `pooled` (1, V) of CLIP.

    Raises:
        BackboneError: they are not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
        _prompt.text_tools(folder, "hunyuanvideo-community/HunyuanVideo", parts)
        import transformers

        count = TEMPLATE_TOKENS + TEXT_TOKENS
        found, mask = _embed(
            transformers.LlamaModel, folder, "", TEMPLATE.format(text), count, masked=True
        )
        pooled, _ = _embed(transformers.CLIPTextModel, folder, "_2", text, CLIP_TOKENS)
        return {
            "text": found.hidden_states[HIDDEN_STATE][:, TEMPLATE_TOKENS:],
            "mask": mask[:, TEMPLATE_TOKENS:],
            "pooled": pooled.pooler_output,
        }

    return _prompt.embeddings(TEXT_ENCODER, text, folder=folder, compute=compute)


def _embed(
    model_class: Any, folder: Path, number: str, text: str, count: int, *, masked: bool = False
) -> tuple[Any, torch.Tensor]:
    """(outputs, mask) of one of the two text encoders for `count` tokens."""
    import torch
    import transformers

    words = transformers.AutoTokenizer.from_pretrained(
        folder / f"tokenizer{number}", local_files_only=True
    )([text], padding="max_length", max_length=count, truncation=True, return_tensors="pt")
    encoder = model_class.from_pretrained(
        folder / f"text_encoder{number}", local_files_only=True, dtype=torch.float16
    )
    given = {"attention_mask": words.attention_mask} if masked else {}
    with torch.inference_mode():
        found = encoder(input_ids=words.input_ids, output_hidden_states=True, **given)
    return found, words.attention_mask


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny model in the published layout; `changes` go to the transformer."""
    import diffusers
    import torch
    from safetensors.torch import save_file

    from explorer.backbones import _hunyuan_vae, _prompt, _tiny

    generator = torch.Generator().manual_seed(0)
    library: Any = diffusers
    channels = _hunyuan_vae.TINY["latent_channels"]
    settings: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": channels,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 2,
        "num_single_layers": 3,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 16,
        "pooled_projection_dim": 8,
        "rope_axes_dim": (4, 4, 4),
        **changes,
    }
    models = {
        "vae": _hunyuan_vae.make(_hunyuan_vae.TINY),
        "transformer": library.HunyuanVideoTransformer3DModel(**settings),
    }
    for name, model in models.items():
        _tiny.randomize(model, generator)
        model.save_pretrained(folder / name)
    texts = {
        "text": torch.randn(1, TEXT_TOKENS, settings["text_embed_dim"], generator=generator),
        "mask": (torch.arange(TEXT_TOKENS) < 3).float()[None],
        "pooled": torch.randn(1, settings["pooled_projection_dim"], generator=generator),
    }
    (folder / "prompts").mkdir(parents=True)
    save_file(texts, folder / "prompts" / _prompt.prompt_file(TEXT_ENCODER, ""))
