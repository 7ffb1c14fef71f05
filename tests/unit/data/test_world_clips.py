"""The shipped clips: complete, exact, and worth as much compressed as raw."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
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
from explorer.reconstruction import Reconstruction
from explorer.references import exact
from explorer.toy import ship_clips
from explorer.toy.config import FRAMES, HEIGHT, WIDTH
from explorer.toy.ship_clips import CLIPS, raw_frames, ship, world_version

FOLDER = Path(__file__).resolve().parents[3] / "assets" / "clips"
LUMA = np.array([0.299, 0.587, 0.114])
COUNT = 5  # frames compared before and after compression
ROOM, ROOM_POSITION = "room-orbit-01", 0
COMPARED = {ROOM: ROOM_POSITION, "ground-dolly-01": 1}  # positions in the split "shipped"
STUDIED = ("room-orbit-02", "room-dolly-01", "room-pan-01", "ground-orbit-01", "ground-pan-02")


def test_a_dozen_clips_lie_there_with_their_geometry_and_hashes():
    index = json.loads((FOLDER / "index.json").read_text())
    videos = sorted(FOLDER.glob("*.mp4"))
    assert [video.stem for video in videos] == sorted(CLIPS)
    assert len(videos) == 12
    for video in videos:
        digest = hashlib.sha256(video.read_bytes()).hexdigest()
        assert index[digest] == f"{video.stem}.safetensors"
        clip = load_clip(video, count=None, size=None)
        assert clip.frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    # The file says which version of the world rendered the clips; the first did not write it down.
    versions = {
        world_version(load_geometry(FOLDER / f"{name}.safetensors").attributes) for name in CLIPS
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
    geometry = load_geometry(FOLDER / f"{name}.safetensors")
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
    assert found.provenance["geometry"] == "ground-pan-01.safetensors"
    assert found.valid.mean() > 0.6
    travel = np.linalg.norm(found.cameras.centers - found.cameras.centers[0], axis=1).max()
    assert travel > 0.05


def test_shipping_writes_a_clip_and_the_geometry_it_was_rendered_with(tmp_path):
    digest = ship(tmp_path, ROOM, ROOM_POSITION, size=(36, 64), supersample=1)
    video = tmp_path / f"{ROOM}.mp4"
    assert digest == hashlib.sha256(video.read_bytes()).hexdigest()
    geometry = load_geometry(video.with_suffix(".safetensors"))
    assert geometry.depth.shape == (FRAMES, 36, 64)
    assert world_version(geometry.attributes) == WORLD_VERSION
    assert_of_its_seed(geometry, [0, FRAMES - 1])
    raw = raw_frames(geometry.attributes, frames=2)
    decoded = load_clip(video, count=2, size=None).frames
    assert decoded.shape == raw.shape
    assert np.abs((decoded.astype(float) - raw) @ LUMA).mean() < 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        video.stem + end for end in (".mp4", ".safetensors")
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
            few = partial(ship_clips.render_shipped, frames=COUNT)
            patch.setattr(ship_clips, "render_shipped", few)
            digest = ship(folder, name, position)
        exact.register_geometry(digest, folder / f"{name}.safetensors")
        decoded = load_clip(folder / f"{name}.mp4", count=COUNT)
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


class Readout:
    """Ridge regression from RGB patches of five clips to geometry: simple, but it does learn."""

    def __init__(self, backbone):
        inputs, targets = [], []
        for name in STUDIED:
            clip = load_clip(FOLDER / f"{name}.mp4", count=COUNT)
            reference = references.reconstruct("exact", clip)
            features = backbone.extract(clip, layers=[0], sigma=0.0)[0]
            sampled = reference.at_frames(features.slot_frames).resized(*features.grid)
            known = sampled.valid
            inputs.append(self.inputs(features)[known])
            targets.append(self.targets(sampled)[known])
        x, y = np.concatenate(inputs), np.concatenate(targets)
        gram = x.T @ x + 1e-2 * len(x) * np.eye(x.shape[1])
        self.weights = np.linalg.solve(gram, x.T @ y)

    @staticmethod
    def inputs(features):
        values = features.values.astype(np.float64)
        return np.concatenate([values, np.ones((*values.shape[:3], 1))], axis=-1)

    @staticmethod
    def targets(sampled):
        safe = np.where(sampled.valid, sampled.depth, 1.0)
        return np.concatenate([np.log(safe)[..., None], sampled.points], axis=-1)

    def predict(self, features, reference):
        out = self.inputs(features) @ self.weights
        sampled = reference.at_frames(features.slot_frames).resized(*features.grid)
        return Reconstruction(
            frames=sampled.frames,
            depth=np.exp(out[..., 0]).astype(np.float32),
            points=out[..., 1:].astype(np.float32),
            confidence=np.ones(out.shape[:3], dtype=np.float32),
            cameras=sampled.cameras,
            source="ridge",
        )


def test_metrics_of_the_mp4_are_those_of_the_raw_frames(pairs):
    backbone = registry.load("rgb", device="cpu")
    readout = Readout(backbone)
    before, after = [], []
    for decoded, raw, reference in pairs:
        for clip, into in ((raw, before), (decoded, after)):
            features = backbone.extract(clip, layers=[0], sigma=0.0)[0]
            report = compare(readout.predict(features, reference), reference)
            matches = correspondence_summary(features, reference, size=clip.size)
            into.append([report.point_error, report.depth_error, matches["error_px"]])
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(np.mean(after, axis=0), np.mean(before, axis=0), rtol=0.05)


def test_a_trained_probe_says_the_same_of_the_mp4_and_of_the_raw_frames(pairs):
    cards = [card for card in list_probes("toy-wan") if card.trained]
    assert cards, "no trained probe of toy-wan is shipped"
    card = min(cards, key=lambda card: (abs(card.layer - 5), abs(card.sigma - 0.3)))
    backbone = registry.load("toy-wan", device="cpu")
    probe = load_probe(card, backbone_hash=backbone.weights_hash)
    before, after = [], []
    for decoded, raw, reference in pairs:
        for clip, into in ((raw, before), (decoded, after)):
            features = backbone.extract(clip, layers=[card.layer], sigma=card.sigma)[card.layer]
            report = compare(predict(probe, features, card=card), reference)
            matches = correspondence_summary(features, reference, size=clip.size)
            into.append([report.point_error, report.depth_error, matches["error_px"]])
    np.testing.assert_allclose(np.mean(after, axis=0), np.mean(before, axis=0), rtol=0.05)
