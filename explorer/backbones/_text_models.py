"""Running the text encoders of published models, from transformers, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder; one that comes with code of its own is refused."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )


def load_encoder(kind: Any, folder: Path, *, dtype: torch.dtype) -> Any:
    """A text encoder of transformers in a dtype.

    The library builds a network of another dtype by changing torch's default for the whole process,
    and whatever another thread makes at that moment gets it too. Here the network is built in the
    default and its parameters, which have no memory yet, are told the dtype before they are read.
    """

    class Quiet(kind):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for parameter in self.parameters():
                parameter.data = parameter.data.to(dtype)

        @classmethod
        def get_init_context(cls, dtype: torch.dtype, *rest: Any, **named: Any) -> Any:
            return super().get_init_context(torch.get_default_dtype(), *rest, **named)

    Quiet.__name__ = kind.__name__
    return Quiet.from_pretrained(folder, local_files_only=True, dtype=dtype)


@torch.inference_mode()
def embed(
    kind: str,
    encoder: Path,
    tokenizer: Path,
    text: str,
    tokens: int,
    *,
    dtype: str = "bfloat16",
    masked: bool = False,
    every_layer: bool = False,
) -> tuple[Any, torch.Tensor]:
    """What an encoder says of a text that is padded or cut to a number of tokens.

    Args:
        kind: class of the encoder in transformers.
        encoder: its folder.
        tokenizer: folder of the tokenizer.
        text: the prompt.
        tokens: L.
        dtype: of the computation.
        masked: whether the encoder is told which tokens are padding.
        every_layer: whether the outputs name the states of every layer.

    Returns:
        The outputs, and (1, L) a mask, one where a token is no padding.
    """
    import transformers

    library: Any = transformers
    words = load_tokenizer(tokenizer)(
        [text], padding="max_length", max_length=tokens, truncation=True, return_tensors="pt"
    )
    model = load_encoder(getattr(library, kind), encoder, dtype=getattr(torch, dtype))
    given = {"attention_mask": words.attention_mask} if masked else {}
    found = model(input_ids=words.input_ids, output_hidden_states=every_layer, **given)
    return found, words.attention_mask
