"""The shipped clips: complete, exact, and worth as much compressed as raw."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer import references
from explorer._video import save_mp4
from explorer.backbones import registry
from explorer.clip import load_clip
from explorer.correspondence import correspondence_summary
from explorer.data.geometry import load_geometry
from explorer.data.world.render import render
from explorer.data.world.scene import sample_scenes
from explorer.data.world.spec import WORLD_VERSION
from explorer.data.world.splits import split_seeds
from explorer.metrics import compare
from explorer.probe.checkpoint import list_probes, load_probe
from explorer.probe.predict import predict
from explorer.references import exact
from explorer.toy import ship_clips
from explorer.toy.config import FRAMES, HEIGHT, WIDTH
from explorer.toy.ship_clips import CLIPS, raw_frames, ship, world_version

FOLDER = Path(__file__).resolve().parents[3] / "assets" / "clips"
LUMA = np.array([0.299, 0.587, 0.114])
ROOM, ROOM_POSITION = "room-orbit-01", 0
# Positions in the split "shipped" of clips whose cameras a probe can read out.
COMPARED = {ROOM: 14, "ground-orbit-01": 3}


def test_a_dozen_clips_lie_there_with_their_geometry_and_hashes():
    index = json.loads((FOLDER / "index.json").read_text())
    videos = sorted(FOLDER.glob("*.mp4"))
    assert [video.stem for video in videos] == sorted(CLIPS)
    assert len(videos) == 12
    for video in videos:
        digest = hashlib.sha256(video.read_bytes()).hexdigest()
        assert index[digest] == f"{video.stem}.safetensors.gz"
        clip = load_clip(video, count=None, size=None)
        assert clip.frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    # The file says which version of the world rendered the clips; the first did not write it down.
    versions = {
        world_version(load_geometry(FOLDER / f"{name}.safetensors.gz").attributes) for name in CLIPS
    }
    assert versions == {index.pop("world", 1)}
    assert len(index) == 12


def assert_of_its_seed(geometry, frames):
    scenes = sample_scenes([geometry.attributes["seed"]])
    height, width = geometry.cameras.size
    assert bool(scenes.room[0]) == (geometry.attributes["place"] == "room")
    np.testing.assert_allclose(geometry.cameras.cam_from_world, scenes.cam_from_world[0], atol=1e-5)
    again = render(scenes, height=height, width=width, frames=frames, images=False)
    same = again.surface.numpy()[0] == geometry.surface[frames]
    assert same.mean() > 0.999
    known = same & (geometry.depth[frames] > 0)
    np.testing.assert_allclose(
        geometry.depth[frames][known], again.depth.numpy()[0][known], rtol=2e-4
    )


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_a_shipped_clip_is_that_of_its_seed_or_says_that_another_world_made_it(name):
    geometry = load_geometry(FOLDER / f"{name}.safetensors.gz")
    low, high = split_seeds("shipped", 1)[0], split_seeds("shipped", 1, start=999_999)[0]
    assert low <= geometry.attributes["seed"] <= high
    if world_version(geometry.attributes) == WORLD_VERSION:
        assert_of_its_seed(geometry, [0, FRAMES - 1])
    else:
        with pytest.raises(ValueError, match="its seed means another scene now"):
            raw_frames(geometry.attributes, frames=1)


def test_the_exact_reference_knows_a_shipped_clip():
    clip = load_clip(FOLDER / "ground-pan-01.mp4")
    found = references.reconstruct("exact", clip)
    assert found is not None
    assert found.size == (HEIGHT, WIDTH)
    assert found.provenance["geometry"] == "ground-pan-01.safetensors.gz"
    assert found.valid.mean() > 0.6
    travel = np.linalg.norm(found.cameras.centers - found.cameras.centers[0], axis=1).max()
    assert travel > 0.05


def test_shipping_writes_a_clip_and_the_geometry_it_was_rendered_with(tmp_path):
    digest = ship(tmp_path, ROOM, ROOM_POSITION, size=(36, 64), supersample=1)
    video = tmp_path / f"{ROOM}.mp4"
    assert digest == hashlib.sha256(video.read_bytes()).hexdigest()
    geometry = load_geometry(video.with_suffix(".safetensors.gz"))
    assert geometry.depth.shape == (FRAMES, 36, 64)
    assert world_version(geometry.attributes) == WORLD_VERSION
    assert_of_its_seed(geometry, [0, FRAMES - 1])
    raw = raw_frames(geometry.attributes, frames=2)
    decoded = load_clip(video, count=2, size=None).frames
    assert decoded.shape == raw.shape
    assert np.abs((decoded.astype(float) - raw) @ LUMA).mean() < 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        video.stem + end for end in (".mp4", ".safetensors.gz")
    ]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """(decoded, raw, reference) of two clips that are shipped here and now."""
    folder, found = tmp_path_factory.mktemp("shipped"), []
    for name, position in COMPARED.items():
        written = []

        def keep(images, path, *, into=written, **named):
            into.append(images)
            save_mp4(images, path, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ship_clips, "save_mp4", keep)  # the raw frames pass here
            digest = ship(folder, name, position, supersample=2)  # for a third of the time
        exact.register_geometry(digest, folder / f"{name}.safetensors.gz")
        decoded = load_clip(folder / f"{name}.mp4")
        (frames,) = written
        reference = references.reconstruct("exact", decoded)
        found.append((decoded, replace(decoded, frames=frames), reference))
    return found


def test_compression_is_visually_lossless(pairs):
    """In luma; chroma is stored at half the resolution, which costs saturated edges a little."""
    for decoded, raw, _ in pairs:
        difference = decoded.frames.astype(float) - raw.frames
        assert 10 * np.log10(255**2 / ((difference @ LUMA) ** 2).mean()) > 40
        assert 10 * np.log10(255**2 / (difference**2).mean()) > 34


def test_a_trained_probe_says_the_same_of_the_mp4_and_of_the_raw_frames(pairs):
    cards = [card for card in list_probes("toy-wan") if card.trained]
    assert cards, "no trained probe of toy-wan is shipped"
    card = min(cards, key=lambda card: (abs(card.layer - 5), abs(card.sigma - 0.3)))
    backbone = registry.load("toy-wan", device="cpu")
    probe = load_probe(card, backbone_hash=backbone.weights_hash)
    for decoded, raw, reference in pairs:
        errors, cameras = [], []
        for clip in (raw, decoded):
            features = backbone.extract(clip, layers=[card.layer], sigma=card.sigma)[card.layer]
            report = compare(predict(probe, features, card=card), reference)
            matches = correspondence_summary(features, reference, size=clip.size)
            errors.append([report.point_error, report.depth_error, matches["error_px"]])
            cameras.append([report.auc5, report.auc30])
        before, after = errors
        assert before != after
        np.testing.assert_allclose(after, before, rtol=0.05)
        assert cameras[0][1] > 0.3, "cameras that nothing reads out could not get worse"
        np.testing.assert_allclose(*cameras, atol=0.02)
