"""Reading the geometry of a recorded look back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explorer._typing import Float
from explorer.recording.layout import TIMELINE


@dataclass(frozen=True)
class RecordedFrame:
    """What a recording holds for one frame; None where nothing was logged."""

    prediction: Float[np.ndarray, "N 3"] | None
    reference: Float[np.ndarray, "M 3"] | None
    reference_depth: Float[np.ndarray, "H W"] | None


def points_by_frame(path: Path) -> dict[int, RecordedFrame]:
    """Read the geometry of an .rrd file back, by frame of the clip.

    Args:
        path: a file written by `Recording`.

    Returns:
        Points in row-major order; the reference's are those with `reference_depth` > 0.
    """
    from rerun.chunk import RrdReader

    points: dict[tuple[str, int], Any] = {}
    depths: dict[int, Any] = {}
    for chunk in RrdReader(path).stream():
        if chunk.is_static or TIMELINE not in chunk.timeline_names:
            continue
        batch = chunk.to_record_batch()
        times = [int(time) for time in _column(batch, TIMELINE).cast("int64").to_pylist()]
        side = chunk.entity_path.strip("/").split("/")[0]
        if chunk.entity_path in ("/prediction/points", "/reference/points"):
            rows = _column(batch, "Points3D:positions")
            for time, row in zip(times, rows, strict=True):
                flat = row.values.flatten().to_numpy(zero_copy_only=False)
                points[side, time] = flat.reshape(-1, 3)
        elif chunk.entity_path == "/depth/reference":
            buffers = _column(batch, "DepthImage:buffer").to_pylist()
            formats = _column(batch, "DepthImage:format").to_pylist()
            for time, buffer, format_ in zip(times, buffers, formats, strict=True):
                depth = np.frombuffer(bytes(buffer[0]), dtype=np.float32)
                depths[time] = depth.reshape(format_[0]["height"], format_[0]["width"])
    frames = sorted({time for _, time in points} | set(depths))
    return {
        frame: RecordedFrame(
            points.get(("prediction", frame)), points.get(("reference", frame)), depths.get(frame)
        )
        for frame in frames
    }


def _column(batch: Any, name: str) -> Any:
    return batch.column(batch.schema.names.index(name))
