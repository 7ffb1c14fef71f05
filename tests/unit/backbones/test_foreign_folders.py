"""A folder of another model is refused in words, before anything of it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.errors import BackboneError

WRITTEN = (
    "wan2.1-1.3b",
    "wan2.1-i2v-14b",
    "wan2.2-ti2v-5b",
    "wan2.2-a14b",
    "cogvideox-2b",
    "cogvideox-5b",
    "hunyuanvideo",
    "hunyuanvideo-1.5",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("foreign")
    for name in WRITTEN:
        registry.write_tiny(name, root / name)
    return root


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("wan2.1-1.3b", "wan2.1-i2v-14b", "takes 12 channels and is given 4"),
        ("wan2.1-i2v-14b", "wan2.1-1.3b", "takes 4 channels and is given 12"),
        ("wan2.1-1.3b", "wan2.2-ti2v-5b", "tokens are 32 pixels wide and not 16"),
        ("wan2.2-ti2v-5b", "wan2.1-1.3b", "tokens are 16 pixels wide and not 32"),
        ("wan2.1-14b", "wan2.2-a14b", "two experts for two ranges of noise: take Wan-AI/Wan2.1-T2"),
        ("wan2.2-a14b", "wan2.1-1.3b", "no config.json in .*transformer_2"),
        (
            "cogvideox-2b",
            "cogvideox-5b",
            "holds a 5B, which has other noise .* zai-org/CogVideoX-2",
        ),
        ("cogvideox-5b", "cogvideox-2b", "holds the 2B, which has other noise"),
        ("cogvideox-2b", "wan2.1-1.3b", "holds WanTransformer3DModel and not CogVideoXTransformer"),
        ("hunyuanvideo", "hunyuanvideo-1.5", "and not HunyuanVideoTransformer3DModel"),
        ("hunyuanvideo-1.5", "hunyuanvideo", "and not HunyuanVideo15Transformer3DModel"),
        ("ltx-video", "wan2.1-1.3b", "holds AutoencoderKLWan and not AutoencoderKLLTXVideo"),
        ("mochi", "wan2.1-1.3b", "holds AutoencoderKLWan and not AutoencoderKLMochi"),
        ("svd", "wan2.1-1.3b", "no config.json in .*unet"),
        ("dinov2-l", "wan2.1-1.3b/transformer", "type None, not 'dinov2'"),
    ],
)
def test_a_folder_of_another_model_is_refused(
    name: str, folder: str, expected: str, folders: Path
) -> None:
    with pytest.raises(BackboneError, match=expected):
        registry.load(name, target=Target(weights=folders / folder))


def test_a_configuration_without_sizes_is_refused(tmp_path: Path) -> None:
    registry.write_tiny("cogvideox-2b", tmp_path)
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"scaling_factor": 1.0}))
    with pytest.raises(BackboneError, match=r"incomplete or not of cogvideox-2b \(KeyError: 'lat"):
        registry.load("cogvideox-2b", target=Target(weights=tmp_path))
