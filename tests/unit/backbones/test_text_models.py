"""Text encoders are what the library loads, and no other thread notices that they are built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from explorer.backbones import _text_models

SIZES = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 50}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 50}
CASES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "T5EncoderModel": (transformers.T5Config, T5),
    "UMT5EncoderModel": (transformers.UMT5Config, T5),
    "CLIPTextModel": (
        transformers.CLIPTextConfig,
        {**SIZES, "intermediate_size": 32, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "LlamaModel": (transformers.LlamaConfig, {**SIZES, "intermediate_size": 32}),
}


# T5 keeps some weights in float32 beside others in float16.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_an_encoder_is_the_librarys_and_is_built_without_changing_the_default(
    name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = getattr(transformers, name)
    config, settings = CASES[name]
    kind(config(**settings)).save_pretrained(tmp_path)
    expected = kind.from_pretrained(tmp_path, local_files_only=True, dtype=dtype)
    changed: list[torch.dtype] = []
    monkeypatch.setattr(torch, "set_default_dtype", changed.append)
    found = _text_models.load_encoder(kind, tmp_path, dtype=dtype)
    assert set(changed) <= {torch.float32}
    theirs = expected.state_dict()
    assert found.state_dict().keys() == theirs.keys()
    for part, value in found.state_dict().items():
        assert value.dtype == theirs[part].dtype
        assert torch.equal(value, theirs[part])
    for part, value in expected.named_buffers():
        assert torch.equal(found.get_buffer(part), value)
    words = torch.arange(3, 9)[None]
    with torch.inference_mode():
        outputs = [each(input_ids=words).last_hidden_state for each in (expected, found)]
    assert torch.equal(*outputs)
