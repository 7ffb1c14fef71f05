"""V-JEPA 1's clips and slots against the formulas, its features against a plain forward."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer.backbones import _vjepa1, registry, vjepa1
from explorer.backbones._options import Target
from explorer.backbones._vjepa1 import Vjepa1Backbone, clip_frames
from explorer.clip import Clip
from explorer.errors import BackboneError
from explorer.nets.vjepa import VideoViT, VideoViTConfig

MakeClip = Callable[..., Clip]
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("vjepa1")
    registry.write_tiny("vjepa1-h", root)
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> Vjepa1Backbone:
    found = registry.load("vjepa1-h", target=Target(weights=folder))
    assert isinstance(found, Vjepa1Backbone)
    found.card = dataclasses.replace(found.card, input_size=(64, 96), token_grid=(2, 3))
    return found


@pytest.fixture(scope="module")
def plain(folder: Path) -> VideoViT:
    """The same weights, read by hand."""
    net = VideoViT(VideoViTConfig(size=128, patch=32, dim=48, depth=3, mlp_ratio=2.0)).eval()
    content = torch.load(folder / vjepa1.FILE, weights_only=True)["encoder"]
    net.load_state_dict({name.split(".", 2)[2]: value for name, value in content.items()})
    return net


def video(clip: Clip, frames: list[int]) -> torch.Tensor:
    pixels = torch.from_numpy(clip.frames[frames]).permute(3, 0, 1, 2).float() / 255
    return ((pixels - MEAN) / DEVIATION)[None]


@pytest.mark.parametrize("clips", [1, 2, 5])
def test_slots_follow_the_mapping_of_the_interleaved_clips(
    model: Vjepa1Backbone, clips: int
) -> None:
    count = 1 + 15 * clips
    frame_to_slot, slot_frames = model.slots(count)
    for frame in range(1, count):
        clip, token = (frame - 1) % clips, ((frame - 1) // clips + 1) // 2
        assert frame_to_slot[frame] == token * clips + clip
        assert frame in clip_frames(count)[clip][2 * token : 2 * token + 2]
    assert frame_to_slot[0] == 0
    assert len(slot_frames) == 8 * clips
    assert (np.diff(slot_frames) > 0).all()
    for clip in range(clips):
        expected = [0] + [clip + 1 + clips * k for k in range(15)]
        assert clip_frames(count)[clip].tolist() == expected


def test_a_clip_of_sixteen_frames_is_seen_in_order() -> None:
    assert [frames.tolist() for frames in clip_frames(16)] == [list(range(16))]


@pytest.mark.parametrize("count", [1, 16, 31])
def test_features_are_the_blocks_outputs_without_the_final_norm(
    model: Vjepa1Backbone, plain: VideoViT, make_clip: MakeClip, count: int
) -> None:
    clip = make_clip(count, (64, 96))
    orders = {
        1: [[0, 0]],
        16: [list(range(16))],
        31: [[0, *range(1, 31, 2)], [0, *range(2, 31, 2)]],
    }[count]
    outputs: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for block in plain.blocks
    ]
    with torch.inference_mode():
        for order in orders:
            plain(video(clip, order))
    for handle in handles:
        handle.remove()
    found = model.extract(clip, layers=[0, 2], sigma=0.0)
    for layer in (0, 2):
        grids = [
            outputs[3 * number + layer][0].reshape(-1, 2, 3, 48) for number in range(len(orders))
        ]
        expected = torch.stack(grids, dim=1).flatten(0, 1)
        np.testing.assert_allclose(found[layer].values, expected.half().numpy(), atol=2e-3)
        assert len(found[layer].values) == len(found[layer].slot_frames)


def test_queries_and_keys_are_the_first_thirds_of_what_the_block_projects(
    model: Vjepa1Backbone, plain: VideoViT, make_clip: MakeClip
) -> None:
    clip = make_clip(16, (64, 96))
    with torch.inference_mode():
        tokens = plain.patch_embed(video(clip, list(range(16)))).flatten(2).transpose(1, 2)
        tokens = tokens + plain.positions((8, 2, 3))
        block = plain.blocks[0]
        projected = block.attn.qkv(block.norm1(tokens))[0].reshape(8, 2, 3, 3, 48)
    for number, tap in enumerate(("query", "key")):
        found = model.extract(clip, layers=[0], sigma=0.0, tap=tap)[0].values
        np.testing.assert_allclose(found, projected[..., number, :].half().numpy(), atol=2e-3)


def test_the_card_counts_the_released_encoder() -> None:
    with torch.device("meta"):
        net = VideoViT(VideoViTConfig())
    card = registry.card("vjepa1-h")
    assert card.parameters == sum(weights.numel() for weights in net.parameters())
    assert (card.layers, card.width) == (net.config.depth, net.config.dim)
    assert card.memory_bytes >= 2 * card.parameters + card.working_bytes


def test_a_folder_without_the_one_file_names_it_and_its_address(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"no .pth.tar file: it needs vith16-384.*https://"):
        registry.load("vjepa1-h", target=Target(weights=tmp_path))


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save({"encoder": {"weight": torch.zeros(2)}}, tmp_path / vjepa1.FILE)
    with pytest.raises(BackboneError, match="is not a V-JEPA 1 encoder"):
        registry.load("vjepa1-h", target=Target(weights=tmp_path))


def test_a_file_that_would_run_a_program_is_refused(tmp_path: Path) -> None:
    torch.save({"encoder": Path("/")}, tmp_path / vjepa1.FILE)
    with pytest.raises(BackboneError, match="was refused: it holds Python objects"):
        registry.load("vjepa1-h", target=Target(weights=tmp_path))


def test_missing_weights_are_answered_with_address_and_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    with pytest.raises(BackboneError, match=r"fetch https://.*vith16.* into the folder vjepa1-h"):
        registry.load("vjepa1-h")


def test_the_shapes_of_the_released_file_give_its_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = Path(__file__).parents[2] / "golden" / "vjepa1-vith16-384-names.json"
    shapes = json.loads(names.read_text())["tensors"]
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    monkeypatch.setattr(_vjepa1, "_state", lambda path: state)
    config, parameters = _vjepa1._facts(tmp_path, 0)
    assert config == VideoViTConfig()
    card = registry.card("vjepa1-h")
    assert parameters == card.parameters
    monkeypatch.setattr(vjepa1, "weights_file", lambda folder: folder)
    assert registry.card("vjepa1-h", weights=tmp_path) == card
