"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import explorer  # noqa: F401  # before any test imports torch: it says how idle threads wait

REPOSITORY = Path(__file__).resolve().parents[1]
NEARBY = REPOSITORY.parent / "shared" / "media"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers in every run and in every order of tests."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries under test may still use it)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference vectors."""
    return REPOSITORY / "tests" / "golden"


@pytest.fixture(scope="session")
def media() -> Path:
    """Folder of real clips that are not part of the project: $EMERGE3D_MEDIA or `NEARBY`."""
    configured = os.environ.get("EMERGE3D_MEDIA")
    folder = Path(configured) if configured else NEARBY
    if not folder.is_dir():
        pytest.skip("no folder of real clips: set EMERGE3D_MEDIA to one")
    return folder


@pytest.fixture
def no_plugins_yet(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Plugins are looked for anew, and what they register is gone after the test."""
    from explorer import plugins, references
    from explorer.backbones import loaded, registry
    from explorer.data import dataset

    monkeypatch.setattr(registry, "_entries", dict(registry.shipped()))
    monkeypatch.setattr(loaded, "models", {})
    monkeypatch.setattr(references, "_references", dict(references.shipped()))
    monkeypatch.setattr(dataset, "_readers", dict(dataset.shipped()))
    monkeypatch.setattr(plugins, "_found", [])
    monkeypatch.setattr(plugins, "_begun", False)
    monkeypatch.delenv("EMERGE3D_PLUGINS", raising=False)
    yield
    own = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(own):
            del sys.modules[name]


def moving_frames(count: int, height: int, width: int) -> np.ndarray:
    """(T, H, W, 3) uint8: a smooth moving picture.

    The top left 16x16 pixels are grey of value 10 + 5 * number, so that a decoded frame can be
    recognised after compression.
    """
    y, x = np.mgrid[0:height, 0:width]
    frames = np.empty((count, height, width, 3), dtype=np.uint8)
    for number in range(count):
        frames[number, ..., 0] = (x + 2 * number) * 255 // (width + 2 * count)
        frames[number, ..., 1] = y * 255 // height
        frames[number, ..., 2] = 128
        frames[number, :16, :16] = 10 + 5 * number
    return frames


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes `moving_frames` as an mp4 with a key frame every `gop` frames."""
    import av

    def make(
        name: str = "tiny.mp4",
        *,
        count: int = 24,
        size: tuple[int, int] = (96, 128),
        fps: int = 24,
        gop: int = 8,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as output:
            options = {"crf": "4", "preset": "veryfast", "g": str(gop), "threads": "1"}
            stream = output.add_stream("libx264", rate=fps, options=options)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            for image in moving_frames(count, *size):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            output.mux(stream.encode(None))
        return path

    return make
