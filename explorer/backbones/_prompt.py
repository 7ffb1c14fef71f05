"""Text embeddings of prompts, computed once and kept: a text encoder can be larger than the model.

An embedding is looked for in the folder of weights (`prompts/`), then in the cache, where it is
named after the files of its encoder; only then is the text encoder loaded, used and let go.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from explorer._atomic import replace_file
from explorer.backbones import _memory, _published
from explorer.backbones._prompt_files import TextEncoder, encoder_files, given_file, prompt_file
from explorer.errors import BackboneError
from explorer.store import default_root

Embeddings = dict[str, torch.Tensor]


def embeddings(
    encoder: TextEncoder, prompt: str, *, folder: Path, compute: Callable[[], Embeddings]
) -> Embeddings:
    """Tensors that a text encoder makes of a prompt.

    Args:
        encoder: which files make it.
        prompt: the text; models are asked with an empty one unless the user says otherwise.
        folder: the model's weights.
        compute: loads the encoder and runs it; called only if no file has the embedding.

    Raises:
        BackboneError: the encoder is missing, broken or too large for this machine, transformers
            is not installed, or a kept file is broken.
    """
    given = given_file(encoder, folder, prompt)
    if given.is_file():
        return _read(given)
    files = encoder_files(encoder, folder, prompt)
    digest = _published.files_hash(folder, files)[:16]
    kept = default_root() / "prompts" / prompt_file(f"{encoder.name}-{digest}", prompt)
    if kept.is_file():
        return _read(kept)
    _need_transformers(encoder)
    _memory.check_text_encoder(encoder.what, _bytes_of(files))
    found = {name: value.float().cpu().contiguous() for name, value in _run(compute, folder)}
    kept.parent.mkdir(parents=True, exist_ok=True)
    replace_file(kept, save(found))
    return found


def _bytes_of(files: list[Path]) -> int:
    """What an encoder needs: two bytes a weight, or a whole torch file, which is read first."""
    weights = [path for path in files if path.suffix == ".safetensors"]
    torch_files = [path for path in files if path.suffix == ".bin"]
    read = sum(path.stat().st_size for path in torch_files)
    return 2 * _published.count_parameters(weights) + read


def _run(compute: Callable[[], Embeddings], folder: Path) -> list[tuple[str, torch.Tensor]]:
    try:
        return list(compute().items())
    except BackboneError:
        raise
    except Exception as error:  # transformers and its tokenizers have a dozen kinds of errors
        reason = " ".join(str(error).split())[:200]
    # raised here, the traceback holds no frame with the encoder
    raise BackboneError(f"the text encoder in {folder} cannot be used ({reason}): fetch it again")


def _read(path: Path) -> Embeddings:
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own kinds of errors
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"{path} is no embedding of a prompt ({reason}): remove it, and it is made again"
        ) from None


def _need_transformers(encoder: TextEncoder) -> None:
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise BackboneError(
            f"{encoder.what} needs transformers once, to embed its prompt: "
            "pip install 'emerge3d[backbones]'"
        ) from None
