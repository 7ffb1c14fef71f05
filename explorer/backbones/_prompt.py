"""Text embeddings of prompts, computed once and kept: a text encoder can be larger than the model.

An embedding is looked for in the folder of weights (`prompts/`), then in the cache; only then is
the text encoder loaded, used and let go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from explorer._atomic import replace_file
from explorer.errors import BackboneError
from explorer.store import default_root

Embeddings = dict[str, torch.Tensor]


def prompt_file(encoder: str, prompt: str) -> str:
    """Name of the file that holds an embedding: the encoder's name and a digest of the text."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
    return f"{encoder}-{digest if prompt else 'empty'}.safetensors"


def embeddings(
    encoder: str, prompt: str, *, folder: Path, compute: Callable[[], Embeddings]
) -> Embeddings:
    """Tensors that a text encoder makes of a prompt.

    Args:
        encoder: name of the encoder and of how its output is used, "umt5-xxl" for example; models
            that share it share embeddings.
        prompt: the text; models are asked with an empty one unless the user says otherwise.
        folder: the model's weights.
        compute: loads the encoder and runs it; called only if no file has the embedding.

    Raises:
        BackboneError: `compute` could not find or load the encoder, or a kept file is broken.
    """
    name = prompt_file(encoder, prompt)
    kept = default_root() / "prompts" / name
    for path in (folder / "prompts" / name, kept):
        if path.is_file():
            return _read(path)
    found = {key: value.float().cpu().contiguous() for key, value in compute().items()}
    kept.parent.mkdir(parents=True, exist_ok=True)
    replace_file(kept, save(found))
    return found


def _read(path: Path) -> Embeddings:
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own kinds of errors
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"{path} is no embedding of a prompt ({reason}): remove it, and it is made again"
        ) from None


def text_tools(folder: Path, what: str, parts: Sequence[str] = ("text_encoder",)) -> None:
    """Refuse to go on without what a text encoder needs.

    Args:
        folder: the model's weights.
        what: the model, for messages.
        parts: folders in it that are needed.

    Raises:
        BackboneError: transformers is not installed, or the folder has no text encoder.
    """
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise BackboneError(
            f"{what} needs transformers once, to embed its prompt: "
            "pip install 'emerge3d[backbones]'"
        ) from None
    for part in parts:
        if not (folder / part).is_dir():
            raise BackboneError(
                f"there is no {part} in {folder}, and no embedding of this prompt is known: "
                f"fetch the whole of {what}, or put its embedding into {folder / 'prompts'}"
            )
