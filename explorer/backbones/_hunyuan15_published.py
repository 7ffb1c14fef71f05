"""HunyuanVideo 1.5's published folder: card, loading, and a tiny folder of the same layout."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _hunyuan_published
from explorer.backbones._options import Target
from explorer.backbones._parts import Family
from explorer.backbones._prompt_files import TextEncoder
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    import torch

    from explorer.backbones._hunyuan import HunyuanBackbone
    from explorer.noise import Schedule

REPOSITORY = "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v"
TEXT_TOKENS = 1000
GLYPH_TOKENS = 256
TEXT = TextEncoder(f"qwen2.5-vl-7b-{TEXT_TOKENS}-byt5-{GLYPH_TOKENS}", REPOSITORY)
FAMILY = Family(
    what=f"{REPOSITORY} (transformer/, vae/)",
    network="HunyuanVideo15Transformer3DModel",
    vae="AutoencoderKLHunyuanVideo15",
    text=TEXT,
)
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


def text_encoder(text: str) -> TextEncoder:
    """What embeds a prompt: the second encoder only where the prompt quotes something."""
    glyphs = ("text_encoder_2", "tokenizer_2") if glyph_text(text) else ()
    return replace(TEXT, parts=(*TEXT.parts, *glyphs))


def hashes(target: Target) -> Hashes:
    """Fingerprints of transformer, VAE and where the prompt's embedding comes from."""
    return replace(FAMILY, text=text_encoder(target.prompt)).hashes(target)


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder: sizes from their configurations.

    Raises:
        BackboneError: a part is missing or broken, or the model is of another task.
    """
    config = FAMILY.config(folder, "transformer")
    if config.get("task_type") != "t2v" or config.get("use_meanflow"):
        raise BackboneError(
            f"{folder} holds another model of the family; {card.id} is text to video: "
            f"take {REPOSITORY}"
        )
    return _hunyuan_published.sized(FAMILY, card, folder, layers=config["num_layers"], shrinks=16)


def load(card: BackboneCard, target: Target, *, schedule: Schedule) -> HunyuanBackbone:
    """VAE, transformer and the prompt's embeddings.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _hunyuan

    return _hunyuan_published.assemble(
        FAMILY,
        card,
        target,
        make=_hunyuan.Hunyuan15Backbone,
        found=hashes(target),
        schedule=schedule,
        texts=prompt(target.folder, target.prompt),
    )


def prompt(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """`text` (1, 1000, D) Qwen states and `mask`, `glyphs` (1, 256, E) of ByT5 and `glyph_mask`.

    Raises:
        BackboneError: they are not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        states, mask = _describe(folder, text)
        glyphs, glyph_mask = _glyphs(folder, text)
        return {"text": states, "mask": mask, "glyphs": glyphs, "glyph_mask": glyph_mask}

    return _prompt.embeddings(text_encoder(text), text, folder=folder, compute=compute)


def _describe(folder: Path, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    import torch
    import transformers

    from explorer.backbones import _text_models

    words: Any = _text_models.load_tokenizer(folder / "tokenizer").apply_chat_template(
        [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text or " "}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        padding="max_length",
        max_length=TEMPLATE_TOKENS + TEXT_TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    encoder = _text_models.load_encoder(
        transformers.Qwen2_5_VLTextModel, folder / "text_encoder", dtype=torch.bfloat16
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

    from explorer.backbones import _text_models

    asked = glyph_text(text)
    if not asked:
        width = FAMILY.config(folder, "transformer")["text_embed_2_dim"]
        return torch.zeros(1, GLYPH_TOKENS, width), torch.zeros(1, GLYPH_TOKENS)
    found, mask = _text_models.embed(
        "T5EncoderModel",
        folder / "text_encoder_2",
        folder / "tokenizer_2",
        asked,
        GLYPH_TOKENS,
        dtype="float32",
        masked=True,
    )
    return found.last_hidden_state, mask


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny model in the published layout; `changes` go to the transformer."""
    import diffusers
    import torch

    from explorer.backbones import _hunyuan_vae, _tiny

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
        "vae": _hunyuan_vae.make(vae, FAMILY.vae),
        "transformer": library.HunyuanVideo15Transformer3DModel(**settings),
    }
    _tiny.write_parts(folder, models, generator)
    texts = {
        "text": torch.randn(1, TEXT_TOKENS, settings["text_embed_dim"], generator=generator),
        "mask": (torch.arange(TEXT_TOKENS) < 6).float()[None],
        "glyphs": torch.zeros(1, GLYPH_TOKENS, settings["text_embed_2_dim"]),
        "glyph_mask": torch.zeros(1, GLYPH_TOKENS),
    }
    _tiny.write_prompt(TEXT, folder, texts)
