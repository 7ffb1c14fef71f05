"""The renderer's own geometry, for the clips that were rendered.

`assets/clips/index.json` maps the sha256 of each video file to its geometry file beside it:
{"<sha256>": "name.safetensors.gz", ...}.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from explorer.assets import assets_root
from explorer.camera import unproject
from explorer.clip import Clip
from explorer.data.geometry import load_geometry
from explorer.data.sampling import cropped, pixels_under
from explorer.errors import ReferenceError3D
from explorer.reconstruction import Reconstruction
from explorer.references import Context, register

_registered: dict[str, Path] = {}


def register_geometry(source_hash: str, path: Path) -> None:
    """Make the geometry of one more video known to this process.

    Args:
        source_hash: sha256 of the video file's bytes, in hex.
        path: file written by `explorer.data.geometry.save_geometry`.
    """
    _registered[source_hash] = Path(path)


def find_geometry(source_hash: str) -> Path | None:
    """Where the exact geometry of a video lies, or None for a video that was not rendered here.

    Raises:
        ReferenceError3D: the index of the shipped clips is broken.
    """
    if source_hash in _registered:
        return _registered[source_hash]
    folder = assets_root() / "clips"
    index = folder / "index.json"
    if not index.is_file():
        return None
    try:
        name = json.loads(index.read_text()).get(source_hash)
    except (ValueError, AttributeError) as error:
        raise ReferenceError3D(f"the index of shipped clips {index} is broken: {error}") from error
    return None if name is None else folder / str(name)


def _knows(clip: Clip) -> bool:
    return find_geometry(clip.source_hash) is not None


@register(
    "exact",
    "Exact geometry from the renderer (shipped clips)",
    knows=_knows,
    licence="Apache-2.0",
)
def reconstruct(clip: Clip, context: Context | None = None) -> Reconstruction | None:
    """Exact geometry of the frames that a clip shows, None for a video that was not rendered here.

    Maps are sampled at the centres of the clip's pixels, nearest neighbour, so that no depth is
    mixed across an edge; intrinsics follow the crop and the resizing exactly, and points are the
    sampled depths unprojected. Normalised: first camera at the origin, mean distance of its points
    1. Confidence is 1 on geometry and 0 on sky.

    Raises:
        ReferenceError3D: the geometry does not fit the video, or the first frame sees only sky.
    """
    path = find_geometry(clip.source_hash)
    if path is None:
        return None
    geometry = load_geometry(path)
    available = len(geometry.depth)
    if geometry.cameras.size != tuple(clip.source_size) or clip.source_frames.max() >= available:
        raise ReferenceError3D(
            f"{path.name} has {available} frames of {geometry.cameras.size}, the video frame "
            f"{int(clip.source_frames.max())} of {tuple(clip.source_size)}: render the clip again"
        )
    pick = np.ix_(clip.source_frames, *pixels_under(clip, geometry.cameras.size))
    depth = geometry.depth[pick]
    cameras = cropped(geometry.cameras.select(clip.source_frames), clip.crop).resized(*clip.size)
    whole = Reconstruction(
        frames=np.arange(len(clip.frames), dtype=np.int64),
        depth=depth,
        points=unproject(depth, cameras),
        confidence=(depth > 0).astype(np.float32),
        cameras=cameras,
        source="exact",
        provenance={"geometry": path.name, "source_hash": clip.source_hash},
    )
    if not whole.valid[0].any():
        raise ReferenceError3D("the first frame sees only sky, so there is no length to measure in")
    return whole.normalized()
