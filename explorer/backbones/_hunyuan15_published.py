"""HunyuanVideo 1.5's published folder: card, loading, and a tiny folder of the same layout."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _published
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    import torch

    from explorer.backbones._hunyuan import Hunyuan15Backbone
    from explorer.noise import Schedule

REPOSITORY = "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v"
LAYOUT = f"{REPOSITORY} (transformer/, vae/)"
VAE = "AutoencoderKLHunyuanVideo15"
TEXT_ENCODER = "qwen2.5-vl-7b-1000-byt5-256"
TEXT_TOKENS = 1000
GLYPH_TOKENS = 256
# The words and the runs of spaces with which the model was trained.
SYSTEM = (" " * 8).join(
    (
        "You are a helpful assistant. Describe the video by detailing the following aspects: ",
        "1. The main content and theme of the video. ",
        "2. The color, shape, size, texture, quantity, text, and spatial relationships of the "
        "objects. ",
        "3. Actions, events, behaviors temporal relationships, physical movement changes of the "
        "objects. ",
        "4. background environment, light, style and atmosphere. ",
        "5. camera angles, movements, and transitions used in the video.",
    )
)
TEMPLATE_TOKENS = 108
HIDDEN_STATE = -3


def hashes(target: Target) -> Hashes:
    """Fingerprints of transformer and VAE; the text encoders count through the prompt."""
    return _published.component_hashes(target, what=LAYOUT, network=("transformer",), encoder="vae")


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder: sizes from their configurations.

    Raises:
        BackboneError: a part is missing or broken, or the model is of another task.
    """
    config = _published.config_of(folder, "transformer", what=LAYOUT)
    vae = _published.config_of(folder, "vae", what=LAYOUT)
    if config.get("task_type") != "t2v" or config.get("use_meanflow"):
        raise BackboneError(
            f"{folder} holds another model of the family; {card.id} is text to video: "
            f"take {REPOSITORY}"
        )
    patch = config["patch_size"] * vae.get("spatial_compression_ratio", 16)
    rows, columns = (size // patch for size in card.input_size)
    layers = config["num_layers"]
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


def load(card: BackboneCard, target: Target, *, schedule: Schedule) -> Hunyuan15Backbone:
    """VAE, transformer and the prompt's embeddings.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    import diffusers

    from explorer.backbones import _build, _hunyuan, _hunyuan_vae

    folder, found = target.folder, hashes(target)
    texts = prompt(folder, target.prompt)
    vae_config, *vae_files = _published.component(folder, "vae", what=LAYOUT)
    vae = _hunyuan_vae.load_vae(target, vae_files, json.loads(vae_config.read_text()), VAE)
    config, *files = _published.component(folder, "transformer", what=LAYOUT)
    settings = json.loads(config.read_text())
    library: Any = diffusers
    transformer = _build.fill(
        _build.build_empty(lambda: library.HunyuanVideo15Transformer3DModel.from_config(settings)),
        _build.shards(files),
        device=target.device,
        dtype=target.dtype,
        where=config.parent,
        offload=target.offload,
    )
    return _hunyuan.Hunyuan15Backbone(
        card,
        vae,
        transformer,
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        schedule=schedule,
        prompt={name: _build.offered(text, target.device) for name, text in texts.items()},
    )


def prompt(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """`text` (1, 1000, D) Qwen states and `mask`, `glyphs` (1, 256, E) of ByT5 and `glyph_mask`.

    Raises:
        BackboneError: they are not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        _prompt.text_tools(folder, REPOSITORY, ("text_encoder", "tokenizer"))
        states, mask = _describe(folder, text)
        glyphs, glyph_mask = _glyphs(folder, text)
        return {"text": states, "mask": mask, "glyphs": glyphs, "glyph_mask": glyph_mask}

    return _prompt.embeddings(TEXT_ENCODER, text, folder=folder, compute=compute)


def _describe(folder: Path, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder / "tokenizer", local_files_only=True
    )
    words: Any = tokenizer.apply_chat_template(
        [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text or " "}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        padding="max_length",
        max_length=TEMPLATE_TOKENS + TEXT_TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    encoder = transformers.Qwen2_5_VLTextModel.from_pretrained(
        folder / "text_encoder", local_files_only=True, dtype=torch.bfloat16
    )
    with torch.inference_mode():
        found = encoder(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            output_hidden_states=True,
        )
    states = found.hidden_states[HIDDEN_STATE]
    return states[:, TEMPLATE_TOKENS:], words["attention_mask"][:, TEMPLATE_TOKENS:]


def glyph_text(text: str) -> str:
    """What ByT5 is given: the quoted parts of a prompt, each once; empty without any."""
    quoted = [one or other for one, other in re.findall(r"\"(.*?)\"|“(.*?)”", text)]
    return "".join(f'Text "{one}". ' for one in dict.fromkeys(quoted))


def _glyphs(folder: Path, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Embedding of the texts in quotes that are to be seen in the video, and its mask."""
    import torch
    import transformers

    from explorer.backbones import _prompt

    asked = glyph_text(text)
    if not asked:
        config = _published.config_of(folder, "transformer", what=LAYOUT)
        empty = torch.zeros(1, GLYPH_TOKENS, config["text_embed_2_dim"])
        return empty, torch.zeros(1, GLYPH_TOKENS)
    _prompt.text_tools(folder, REPOSITORY, ("text_encoder_2", "tokenizer_2"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder / "tokenizer_2", local_files_only=True
    )
    words = tokenizer(
        [asked],
        padding="max_length",
        max_length=GLYPH_TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    encoder = transformers.T5EncoderModel.from_pretrained(
        folder / "text_encoder_2", local_files_only=True, dtype=torch.float32
    )
    with torch.inference_mode():
        states = encoder(words.input_ids, words.attention_mask.float()).last_hidden_state
    return states, words.attention_mask


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny model in the published layout; `changes` go to the transformer."""
    import diffusers
    import torch
    from safetensors.torch import save_file

    from explorer.backbones import _hunyuan_vae, _prompt, _tiny

    generator = torch.Generator().manual_seed(0)
    library: Any = diffusers
    settings: dict[str, Any] = {
        "in_channels": 9,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 4,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 16,
        "text_embed_2_dim": 8,
        "image_embed_dim": 8,
        "rope_axes_dim": (4, 4, 4),
        "task_type": "t2v",
        **changes,
    }
    vae = {
        "latent_channels": 4,
        "block_out_channels": [2, 4, 8, 16, 16],
        "layers_per_block": 1,
    }
    models = {
        "vae": _hunyuan_vae.make(vae, VAE),
        "transformer": library.HunyuanVideo15Transformer3DModel(**settings),
    }
    for name, model in models.items():
        _tiny.randomize(model, generator)
        model.save_pretrained(folder / name)
    texts = {
        "text": torch.randn(1, TEXT_TOKENS, settings["text_embed_dim"], generator=generator),
        "mask": (torch.arange(TEXT_TOKENS) < 6).float()[None],
        "glyphs": torch.zeros(1, GLYPH_TOKENS, settings["text_embed_2_dim"]),
        "glyph_mask": torch.zeros(1, GLYPH_TOKENS),
    }
    (folder / "prompts").mkdir(parents=True)
    save_file(texts, folder / "prompts" / _prompt.prompt_file(TEXT_ENCODER, ""))
