"""Where the embedding of a prompt comes from, as files. Needs no torch.

An embedding belongs to the files of the text encoder and tokenizer that made it. One that lies in
`prompts/` of a folder of weights belongs to that folder and is taken as it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from explorer.backbones import _published
from explorer.backbones._weight_files import listed, weight_files
from explorer.errors import BackboneError

FOLDER = "prompts"


@dataclass(frozen=True)
class TextEncoder:
    """What embeds the prompts of a model.

    Attributes:
        name: of the encoder and of how its output is used, "umt5-xxl" for example; models of one
            name share embeddings where their files are the same.
        what: the model, for messages.
        parts: folders with the encoders and tokenizers.
    """

    name: str
    what: str
    parts: tuple[str, ...] = ("text_encoder", "tokenizer")


def prompt_file(name: str, prompt: str) -> str:
    """Name of the file that holds an embedding: the encoder's name and a digest of the text."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
    return f"{name}-{digest if prompt else 'empty'}.safetensors"


def given_file(encoder: TextEncoder, folder: Path, prompt: str) -> Path:
    """Where a folder of weights has the embedding, if it has it."""
    return folder / FOLDER / prompt_file(encoder.name, prompt)


def origin(encoder: TextEncoder, folder: Path, prompt: str) -> str:
    """sha256 of what the embedding comes from: its file in the folder, else the encoder's files.

    Raises:
        BackboneError: the folder has neither.
    """
    given = given_file(encoder, folder, prompt)
    if given.is_file():
        return _published.files_hash(folder, [given])
    return _published.files_hash(folder, encoder_files(encoder, folder, prompt))


def encoder_files(encoder: TextEncoder, folder: Path, prompt: str) -> list[Path]:
    """Everything that decides what a text encoder makes of a prompt.

    Raises:
        BackboneError: a part is missing or incomplete.
    """
    files: list[Path] = []
    for part in encoder.parts:
        have = sorted(path for path in (folder / part).glob("*") if path.is_file())
        weights = weight_files(folder / part)
        lacking = () if not have or part.startswith("tokenizer") else weights.missing
        if not have or lacking:
            known = given_file(encoder, folder, prompt)
            what = f"there is no {part} in {folder}"
            if have:
                what = f"{folder / part} lacks {listed(lacking)}"
            raise BackboneError(
                f"{what}, and no embedding of this prompt is known: fetch the whole of "
                f"{encoder.what}, or put its embedding into {known.parent} as {known.name}"
            )
        copies = (".safetensors", ".bin")
        files += [path for path in have if path.suffix not in copies]
        files += weights.files
    return files
