"""A dataset of smooth, small scenes and a reference that knows them, for tests of prepared data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from explorer import references
from explorer.clip import Clip
from explorer.data import dataset
from explorer.data.dataset import Dataset, DatasetCard, SceneEntry
from explorer.data.scene import Scene, View
from explorer.reconstruction import Reconstruction
from explorer.references import Context

SIZE = (24, 32)
FRAMES = 9
CARD = DatasetCard("tiny", "smooth scenes", "none", "nowhere", "a file called tiny", "exact")


class TinyScene(Scene):
    """Frame f of scene n: grey 20 n + f with a gradient, a bowl of depth, a camera that steps."""

    def __init__(self, entry: SceneEntry, number: int, frames: int = FRAMES + 2) -> None:
        super().__init__(entry, dataset="tiny", frames=frames, geometry="exact", unit="m")
        self.number = number

    def source(self, frame: int) -> bytes:
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        picture = np.stack([x * 4, y * 5, np.full_like(x, 20 * self.number + frame)], axis=-1)
        return picture.astype(np.uint8).tobytes()

    def picture(self, frame: int, data: bytes) -> np.ndarray:
        return np.frombuffer(data, dtype=np.uint8).reshape(*SIZE, 3)

    def view(self, frame: int) -> View:
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        depth = 2 + self.number + 0.1 * np.sin(x / 5 + frame) + y / SIZE[0]
        depth[:3] = 0
        pose = np.eye(4)[:3]
        pose[0, 3] = -0.1 * frame
        matrix = np.array([[30.0, 0, SIZE[1] / 2], [0, 30.0, SIZE[0] / 2], [0, 0, 1]])
        return View(matrix, pose, depth.astype(np.float32), (1 + depth**2).astype(np.float32))


class Tiny(Dataset):
    """Scenes s0, s1, ... in places of two; s3 is shorter than the others."""

    count = 6

    @classmethod
    def finds(cls, root: Path) -> bool:
        return (root / "tiny").is_file()

    def listing(self) -> tuple[SceneEntry, ...]:
        return tuple(SceneEntry(f"s{n}", f"p{n // 2}") for n in range(self.count))

    def open(self, entry: SceneEntry) -> Scene:
        number = int(entry.name[1:])
        return TinyScene(entry, number, frames=4 if number == 3 else FRAMES + 2)


def dense(clip: Clip, context: Context) -> Reconstruction | None:
    """What the scene knows."""
    assert clip.scene is not None
    return clip.scene.reconstruction(clip)


def sparse(clip: Clip, context: Context) -> Reconstruction | None:
    """A few points of every second frame, none at a pixel's centre."""
    from explorer._sparse import splat

    assert clip.scene is not None
    whole = clip.scene.reconstruction(clip)
    frames = np.arange(0, len(clip), 2)
    cameras = whole.cameras.select(frames)
    points = whole.points[0][whole.valid[0]][::7] * 1.01
    confidence = np.linspace(1, 2, len(points))
    maps = [
        splat(points, confidence, pose, matrix, size=whole.size)
        for pose, matrix in zip(cameras.cam_from_world, cameras.intrinsics, strict=True)
    ]
    depth, spread, sure = (np.stack(each) for each in zip(*maps, strict=True))
    return Reconstruction(frames, depth, spread, sure, cameras, "few points", {}, sparse=True)


def other_points(clip: Clip, context: Context) -> Reconstruction | None:
    """Points that are not the depth seen through the cameras."""
    from dataclasses import replace

    assert clip.scene is not None
    found = clip.scene.reconstruction(clip)
    return replace(found, points=found.points * 1.1)


def some_frames(clip: Clip, context: Context) -> Reconstruction | None:
    """Frames 0, 1 and 5, at half the size."""
    assert clip.scene is not None
    found = clip.scene.reconstruction(clip)
    return found.at_frames(np.array([0, 1, 5])).resized(12, 16)


REFERENCES: dict[str, Callable[[Clip, Context], Reconstruction | None]] = {
    "tiny-dense": dense,
    "tiny-sparse": sparse,
    "tiny-points": other_points,
    "tiny-some": some_frames,
}


def entry(reference: Callable[[Clip, Context], Reconstruction | None]) -> references.Entry:
    return references.Entry("for tests", reference, None, None, None)


def install() -> None:
    """Register everything for good, in a process of its own."""
    dataset.cards()
    references.names()
    dataset.register(CARD)(Tiny)
    for name, reference in REFERENCES.items():
        references._references[name] = entry(reference)


def hold_at(scene: str, flag: Path) -> None:
    """Let the dense reference wait for ever at one scene, and write a file when it gets there."""
    import time

    def waits(clip: Clip, context: Context) -> Reconstruction | None:
        if clip.name.endswith(scene):
            flag.write_text("here")
            while True:
                time.sleep(60)
        return dense(clip, context)

    references._references["tiny-dense"] = entry(waits)


def patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register everything for one test."""
    dataset.cards()  # let the others register first
    references.names()
    monkeypatch.setitem(dataset._readers, "tiny", Tiny)
    monkeypatch.setattr(Tiny, "card", CARD, raising=False)
    for name, reference in REFERENCES.items():
        monkeypatch.setitem(references._references, name, entry(reference))


def folder_in(root: Path) -> Path:
    """A folder that the dataset finds its own."""
    (root / "data").mkdir()
    (root / "data" / "tiny").touch()
    return root / "data"


def main() -> int:
    """`emerge3d` with the dataset and the references of this file: [--hold SCENE FLAG] ARGS."""
    from explorer.cli import main as command

    install()
    arguments = sys.argv[1:]
    if arguments[:1] == ["--hold"]:
        hold_at(arguments[1], Path(arguments[2]))
        arguments = arguments[3:]
    return command(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
