"""A look as files for other programs: point clouds, arrays, cameras, the summary, a recording."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from explorer._resize import resize
from explorer.clip import Clip
from explorer.errors import EmergeError
from explorer.look.stages import (
    Compared,
    Decoded,
    Finished,
    LookRequest,
    Predicted,
    Referenced,
    Stage,
)
from explorer.reconstruction import Reconstruction
from explorer.recording import Recording
from explorer.report import Alignment

SIDES = ("prediction", "reference")


def file_stem(clip: str, request: LookRequest) -> str:
    """A file's name, without its ending, that says which cell of which clip it is."""
    name = Path(clip).stem
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return f"{safe}_{request.backbone}_L{request.layer:02d}_S{request.sigma:.2f}"


def export(stages: Iterable[Stage], folder: Path) -> list[str]:
    """Run a look and write what it finds into a new folder; the names of its files.

    They are `look.json` (what `emerge3d look --json` prints), `look.rrd`, and for the prediction
    and the reference, where there are such: `prediction.ply`, its points in the colours of the clip
    (`aligned.ply`: the same carried onto the reference), `prediction.npz`, its depth, points,
    confidence and cameras (see `arrays`). The folder is there with all of them, or not at all.

    Args:
        stages: of a look.
        folder: is made; must not be there yet.

    Raises:
        EmergeError: the folder is there already, or cannot be written.
    """
    if folder.exists():
        raise EmergeError(f"{folder} exists already: give another --out, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name[:32]}.", dir=folder.parent))
    except OSError as error:
        raise EmergeError(f"{folder} cannot be made ({error}): give another --out") from error
    try:
        _write(stages, fresh, folder.name)
        names = sorted(path.name for path in fresh.iterdir())
        for name in names:
            with (fresh / name).open("rb+") as file:
                os.fsync(file.fileno())
        fresh.chmod(0o755)  # temporary folders are their owner's alone
        os.rename(fresh, folder)
    except OSError as error:
        raise EmergeError(f"{folder} cannot be written ({error}): give another --out") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return names


def _write(stages: Iterable[Stage], folder: Path, name: str) -> None:
    clip: Clip | None = None
    found: dict[str, Reconstruction | None] = {}
    with Recording(name, path=folder / "look.rrd") as recording:
        for stage in stages:
            recording.on_stage(stage)
            match stage:
                case Decoded():
                    clip = stage.clip
                case Predicted():
                    found["prediction"] = stage.reconstruction
                case Referenced():
                    found["reference"] = stage.reconstruction
                case Compared(report=report) if report is not None:
                    _write_cloud(
                        folder / "aligned.ply", found["prediction"], clip, report.alignment
                    )
                case Finished():
                    text = json.dumps(stage.summary, indent=1, allow_nan=False) + "\n"
                    (folder / "look.json").write_text(text)
    for side in SIDES:
        one = found.get(side)
        if one is not None:
            _write_cloud(folder / f"{side}.ply", one, clip, None)
            with (folder / f"{side}.npz").open("wb") as file:
                np.savez_compressed(file, **arrays(one))


def arrays(made: Reconstruction) -> dict[str, Any]:
    """A reconstruction's arrays by name, float32.

    Returns:
        frames (S,), depth (S, H, W), points (S, H, W, 3) and confidence (S, H, W) as in
        `Reconstruction`; cam_from_world (S, 3, 4) and intrinsics (S, 3, 3), in pixels of (H, W).
    """
    return {
        "frames": made.frames,
        "depth": made.depth.astype(np.float32),
        "points": made.points.astype(np.float32),
        "confidence": made.confidence.astype(np.float32),
        "cam_from_world": made.cameras.cam_from_world.astype(np.float32),
        "intrinsics": made.cameras.intrinsics.astype(np.float32),
    }


def _write_cloud(
    path: Path, made: Reconstruction | None, clip: Clip | None, alignment: Alignment | None
) -> None:
    """The known points as a binary PLY, in OpenCV's axes."""
    import trimesh

    library: Any = trimesh  # its functions have no types

    if made is None or clip is None or not made.valid.any():
        return
    colors = np.stack([resize(clip.frames[frame], made.size) for frame in made.frames])[made.valid]
    points = made.points[made.valid].astype(np.float64)
    if alignment is not None:
        points = alignment.apply(points)
    library.PointCloud(points, colors=colors).export(path)
