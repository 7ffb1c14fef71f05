"""The clips that come with the project: rendered, compressed, and their exact geometry beside them.

    python -m explorer.toy.ship_clips --out assets/clips

Every clip is 17 frames of 144x256, rendered from a seed of the split "shipped" and named after its
place and its camera's motion. `index.json` maps the sha256 of each video to its geometry file, and
"world" to the version of the world that they were rendered by, as does each geometry file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from explorer._atomic import replace_file
from explorer._typing import UInt8
from explorer._video import save_mp4
from explorer.data.geometry import save_geometry
from explorer.data.world.render import Rendered, render
from explorer.data.world.scene import sample_scenes
from explorer.data.world.spec import WORLD_VERSION, WorldSpec
from explorer.data.world.splits import split_seeds
from explorer.toy.config import HEIGHT, WIDTH

FPS = 8.0
CRF = 10
SUPERSAMPLE = 3

# Chosen by eye for variety: positions in the split "shipped".
CLIPS = {
    "room-orbit-01": 279,
    "room-orbit-02": 69,
    "room-orbit-03": 8,
    "room-dolly-01": 131,
    "room-dolly-02": 326,
    "room-pan-01": 460,
    "ground-orbit-01": 363,
    "ground-orbit-02": 32,
    "ground-dolly-01": 206,
    "ground-dolly-02": 58,
    "ground-pan-01": 402,
    "ground-pan-02": 276,
}


def render_shipped(
    seed: int,
    *,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    supersample: int = SUPERSAMPLE,
    frames: int | None = None,
    device: str = "cpu",
) -> Rendered:
    """The one clip of a seed, frame by frame to keep memory small.

    Args:
        seed: of the scene.
        size: (height, width) of the frames.
        supersample: rays a pixel along each axis.
        frames: how many from the start, default all.
        device: where to render.
    """
    import torch

    scenes = sample_scenes([seed])
    parts = [
        render(
            scenes,
            height=size[0],
            width=size[1],
            supersample=supersample,
            device=device,
            frames=[frame],
        )
        for frame in range(frames or WorldSpec().frames)
    ]
    return Rendered(
        images=torch.cat([part.images for part in parts], dim=1),
        depth=torch.cat([part.depth for part in parts], dim=1),
        surface=torch.cat([part.surface for part in parts], dim=1),
        cam_from_world=torch.cat([part.cam_from_world for part in parts], dim=1),
        intrinsics=parts[0].intrinsics,
    )


def world_version(attributes: dict[str, Any]) -> int:
    """The version of the world that rendered a clip.

    Args:
        attributes: `Geometry.attributes` of a file that `ship` wrote; the first did not say.
    """
    return int(attributes.get("world", 1))


def raw_frames(
    attributes: dict[str, Any], *, frames: int | None = None
) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames of a shipped clip as they were before compression.

    Args:
        attributes: `Geometry.attributes` of a file that `ship` wrote.
        frames: how many from the start, default all.

    Raises:
        ValueError: another version of the world rendered it, so its seed means another scene now.
    """
    version = world_version(attributes)
    if version != WORLD_VERSION:
        raise ValueError(
            f"version {version} of the world rendered this clip and this is {WORLD_VERSION}: "
            "its seed means another scene now"
        )
    height, width = attributes["size"]
    rendered = render_shipped(
        attributes["seed"],
        size=(height, width),
        supersample=attributes["supersample"],
        frames=frames,
    )
    return rendered.images[0].cpu().numpy()


def ship(
    out: Path,
    name: str,
    position: int,
    *,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    supersample: int = SUPERSAMPLE,
) -> str:
    """Write one clip and its geometry; returns the sha256 of the mp4.

    Args:
        out: folder that takes `name`.mp4 and `name`.safetensors.gz.
        name: of the clip, "place-motion-number".
        position: in the split "shipped".
        size: (height, width) of the frames.
        supersample: rays a pixel along each axis.
    """
    seed = split_seeds("shipped", 1, start=position)[0]
    rendered = render_shipped(seed, size=size, supersample=supersample)
    frames = len(rendered.images[0])
    place, motion, _ = name.split("-")
    video = out / f"{name}.mp4"
    save_mp4(rendered.images[0].cpu().numpy(), video, fps=FPS, crf=CRF)
    save_geometry(
        video.with_suffix(".safetensors.gz"),
        depth=rendered.depth[0].cpu().numpy(),
        surface=rendered.surface[0].cpu().numpy(),
        cam_from_world=rendered.cam_from_world[0].cpu().numpy(),
        intrinsics=np.repeat(rendered.intrinsics.cpu().numpy(), frames, axis=0),
        attributes={
            "seed": seed,
            "world": WORLD_VERSION,
            "split": "shipped",
            "place": place,
            "motion": motion,
            "size": list(size),
            "supersample": supersample,
        },
    )
    return hashlib.sha256(video.read_bytes()).hexdigest()


def main() -> None:
    """Render all shipped clips into a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the clips")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    index: dict[str, str | int] = {
        ship(out, name, position): f"{name}.safetensors.gz" for name, position in CLIPS.items()
    }
    index["world"] = WORLD_VERSION
    replace_file(out / "index.json", (json.dumps(index, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
