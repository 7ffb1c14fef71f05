"""The looks that stay in memory."""

from __future__ import annotations

import numpy as np

from app.looks import Look, Looks
from explorer.backbones.base import slot_map
from explorer.camera import Cameras
from explorer.clip import clip_from_frames
from explorer.correspondence import correspond
from explorer.features import Features
from explorer.look import Decoded, FeaturesReady, LookRequest, Referenced
from explorer.reconstruction import Reconstruction

CLIP_BYTES = 4 * 16 * 16 * 3


def some_look(name: str) -> Look:
    found = Look(name, LookRequest("a.mp4", "toy", 1, 0.3))
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    found.remember(Decoded(seconds=0.1, clip=clip_from_frames(frames, name="a.mp4")))
    return found


def reference(frames: list[int]) -> Reconstruction:
    count, size = len(frames), (16, 32)
    depth = np.random.default_rng(0).uniform(1, 2, (count, *size)).astype(np.float32)
    eye = np.tile(np.eye(3, 4), (count, 1, 1))
    eye[:, 0, 3] = 0.05 * np.arange(count)
    lens = np.tile(np.array([[20.0, 0, 16], [0, 20, 8], [0, 0, 1]]), (count, 1, 1))
    return Reconstruction(
        frames=np.array(frames),
        depth=depth,
        points=np.ones((count, *size, 3), np.float32),
        confidence=np.ones_like(depth),
        cameras=Cameras(eye, lens, size),
        source="exact",
    )


def test_the_oldest_looks_leave_when_there_are_too_many_bytes() -> None:
    looks = Looks(budget=3 * CLIP_BYTES + 1000)
    for name in ("a", "b", "c"):
        looks.put(some_look(name))
    assert looks.get("a") is not None  # now b is the oldest
    looks.put(some_look("d"))
    assert looks.get("b") is None
    assert all(looks.get(name) is not None for name in ("a", "c", "d"))
    looks.drop("a")
    assert looks.get("a") is None
    assert looks.get(None) is None


def test_what_an_open_page_shows_never_leaves() -> None:
    looks = Looks(budget=CLIP_BYTES)
    for name in ("a", "b", "c"):
        looks.put(some_look(name), shown={"a", None})
    assert looks.get("a") is not None
    assert looks.get("b") is None
    assert looks.get("c") is not None


def test_a_look_counts_its_arrays_once_and_keeps_no_points_of_the_full_reference() -> None:
    found = some_look("a")
    before = found.nbytes
    assert CLIP_BYTES <= before < CLIP_BYTES + 1000
    full = reference([0, 1, 2, 3])
    small = full.at_frames(np.array([0, 1]))
    found.remember(Referenced(seconds=0.2, reconstruction=small, full=full, note=None))
    cameras = full.cameras.cam_from_world.nbytes + full.cameras.intrinsics.nbytes
    least = full.depth.nbytes + full.confidence.nbytes + small.points.nbytes
    assert least < found.nbytes - before < least + full.points.nbytes + 2 * cameras


def test_a_pick_finds_the_same_truth_without_the_points_of_the_reference() -> None:
    frame_to_slot, slot_frames = slot_map(5, 4)
    values = np.random.default_rng(1).normal(size=(2, 2, 4, 3)).astype(np.float16)
    features = Features(values, frame_to_slot, slot_frames, "toy", "0", 0, 0.0, 0.0, 999, 0)
    full = reference([0, 1, 2, 3, 4])
    found = some_look("a")
    found.remember(FeaturesReady(seconds=0.2, features=features, cached=False))
    found.remember(Referenced(seconds=0.3, reconstruction=full, full=full, note=None))
    assert found.reference is not None
    for frame in range(5):
        asked = {"size": (16, 32)}
        kept = correspond(features, 12.0, 7.0, frame, reference=found.reference, **asked)
        whole = correspond(features, 12.0, 7.0, frame, reference=full, **asked)
        assert kept.as_dict() == whole.as_dict()
