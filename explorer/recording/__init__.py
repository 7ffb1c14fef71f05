"""The Rerun recording of one look: streamed into the page, or written to an .rrd file.

Entities (timeline `frame`, the frame of the clip that a slot stands for):
    /prediction/points, /prediction/camera, /prediction/frustums
    /reference/points, /reference/camera, /reference/frustums
    /input, /depth/prediction, /depth/reference, /error
    /error/disputed over the error: 1 where a second judge disagrees with the reference, else 0
The input has the frames in between too, but none after the last slot's: the viewer rests at the end
of the timeline, and what it shows there belongs to one frame.
Panes that stay empty say why: /prediction/note, /depth/prediction/note, /reference/note, ...

Both 3D worlds have the first camera at the origin, x right, y down, z forward, and the mean
distance of the first frame's points, in a prediction the probe's estimate of it, as their unit;
prediction and reference are shown unaligned.
Points are row-major: all pixels of a prediction, the known ones (reference depth > 0) of a
reference, so that the point error can be computed again from the recording alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rerun as rr

from explorer import _atomic
from explorer._resize import resize
from explorer._typing import Bool, Float, UInt8
from explorer.camera import Cameras
from explorer.colors import DEPTH_MAP, DISPUTED, PREDICTION, REFERENCE, UNKNOWN, colorize, masked
from explorer.jpeg import encode_jpeg
from explorer.look.stages import (
    Compared,
    Decoded,
    FeaturesReady,
    FramePredicted,
    Judged,
    Predicted,
    Referenced,
    Stage,
)
from explorer.reconstruction import Reconstruction
from explorer.recording.layout import DEPTH_RANGE, ERROR_RANGE, TIMELINE, blueprint
from explorer.recording.read import RecordedFrame, points_by_frame
from explorer.references.agreement import Agreement
from explorer.report import Report

if TYPE_CHECKING:
    from explorer.clip import Clip

__all__ = [
    "DEPTH_RANGE",
    "ERROR_RANGE",
    "RecordedFrame",
    "Recording",
    "blueprint",
    "frustum",
    "points_by_frame",
]

APPLICATION = "emerge3d"
FRUSTUM_DEPTH = 0.12  # of the unit length


class Recording:
    """One recording stream of its own, fed with the stages of one look.

    As a context it closes itself, or after an exception leaves nothing behind.

    Args:
        name: shown in the viewer.
        path: write an .rrd there instead of keeping bytes for `read`; it appears, complete, when
            the recording is closed.

    Raises:
        OSError: nothing can be written at `path`.
    """

    def __init__(self, name: str, *, path: Path | None = None) -> None:
        # A new id a run: two looks in one process must not share a recording.
        self.id = str(uuid.uuid4())
        self._stream = rr.RecordingStream(APPLICATION, recording_id=self.id)
        self._path = path
        self._temporary: Path | None = None
        self._bytes: rr.BinaryStream | None = None
        if path is None:
            self._bytes = rr.binary_stream(self._stream)
        else:
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = _atomic.begin(path)
            self._stream.save(self._temporary)
        self._stream.send_recording_name(name)
        self._stream.send_blueprint(blueprint())
        self._clip: Clip | None = None
        self._frames: list[int] = []
        self._referenced: list[int] = []
        self._disputed: Bool[np.ndarray, "S H W"] | None = None
        log_conventions(self._stream)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def on_stage(self, stage: Stage) -> None:
        """Log what a stage brought; stages without anything to show are ignored."""
        match stage:
            case Decoded():
                self._clip = stage.clip
                # Which frame the timeline ends at is not known before the features.
                log_input(self._stream, stage.clip, range(1))
            case FeaturesReady(features=features):
                last = int(features.slot_frames[-1])
                log_input(self._stream, self._decoded(), range(1, last + 1))
            case FramePredicted():
                self._frames.append(stage.frame)
                log_predicted_frame(self._stream, stage, image=self._image(stage.frame))
            case Predicted(reconstruction=None):
                log_absence(self._stream, "prediction", "no probe for this cell")
            case Predicted(reconstruction=Reconstruction() as found):
                self._frames = [int(frame) for frame in found.frames]
            case Referenced(reconstruction=None):
                log_absence(self._stream, "reference", "no reference")
            case Referenced(reconstruction=Reconstruction() as found):
                self._referenced = [int(frame) for frame in found.frames]
                self._frames = self._frames or self._referenced
                for index, frame in enumerate(found.frames):
                    log_reference_frame(self._stream, found, index, image=self._image(int(frame)))
            case Judged(agreement=Agreement() as agreed):
                self._disputed = agreed.disagree
            case Compared(report=None):
                log_empty_picture(self._stream, "/error/note", "nothing to compare")
            case Compared(report=Report() as report):
                log_error(self._stream, report, self._frames)
                if self._disputed is not None:
                    log_disputed(self._stream, self._disputed, self._referenced)

    def read(self) -> bytes:
        """The bytes logged since the last call, each time a complete rrd; empty if nothing new.

        Raises:
            ValueError: the recording goes to a file.
        """
        if self._bytes is None:
            raise ValueError("this recording is written to a file, not kept as bytes")
        return self._bytes.read() or b""

    def close(self) -> None:
        """Finish the file: flush, fsync and rename. A recording in memory needs no closing.

        Raises:
            OSError: the disk is full or gone; the old file is still there, and nothing else.
        """
        self._stream.flush()
        if self._temporary is None or self._path is None:
            return
        self._stream.disconnect()
        try:
            _atomic.finish(self._temporary, self._path)
        except BaseException:
            self.discard()
            raise
        self._temporary = None

    def discard(self) -> None:
        """Leave no file behind, after a look that failed."""
        self._stream.disconnect()
        if self._temporary is not None:
            _atomic.discard(self._temporary)
            self._temporary = None

    def _decoded(self) -> Clip:
        if self._clip is None:
            raise ValueError("the decoded clip must be logged before anything else")
        return self._clip

    def _image(self, frame: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._decoded().frames[frame]


def log_conventions(stream: rr.RecordingStream) -> None:
    """Axes of both worlds and the look of their points."""
    for world in ("/prediction", "/reference"):
        stream.log(world, rr.ViewCoordinates.RDF, static=True)  # x right, y down, z forward
        points = rr.Points3D.from_fields(radii=rr.Radius.ui_points(1.5))
        stream.log(f"{world}/points", points, static=True)


def log_absence(stream: rr.RecordingStream, side: str, text: str) -> None:
    """Say in the panes of one side, "prediction" or "reference", why they stay empty."""
    # Labels take the colour of what they stand at, and without one the viewer invents it.
    in_space = rr.Points3D([[0.0, 0.0, 0.9]], labels=[text], show_labels=True, colors=[UNKNOWN])
    stream.log(f"/{side}/note", in_space, static=True)
    log_empty_picture(stream, f"/depth/{side}/note", text)


def log_empty_picture(stream: rr.RecordingStream, path: str, text: str) -> None:
    """A frame with a word in its middle; a point alone would give the view no extent.

    The frame's own label would stand below it, where a low view cuts it off.
    """
    frame = rr.Boxes2D(centers=[[128.0, 72.0]], half_sizes=[[128.0, 72.0]], colors=[UNKNOWN])
    word = rr.Points2D(
        [[128.0, 60.0]], labels=[text], show_labels=True, colors=[UNKNOWN], radii=[0.0]
    )
    stream.log(path, frame, static=True)
    stream.log(f"{path}/word", word, static=True)


def log_input(stream: rr.RecordingStream, clip: Clip, frames: Iterable[int]) -> None:
    """Some frames of the clip, as JPEG."""
    for frame in frames:
        stream.set_time(TIMELINE, sequence=frame)
        picture = rr.EncodedImage(contents=encode_jpeg(clip.frames[frame]), media_type="image/jpeg")
        stream.log("/input", picture)


def log_predicted_frame(
    stream: rr.RecordingStream,
    stage: FramePredicted,
    *,
    image: UInt8[np.ndarray, "H W 3"],
) -> None:
    """Points, camera and depth of one predicted slot."""
    # Rerun's time belongs to the thread, and a page may resume a run on any thread.
    stream.set_time(TIMELINE, sequence=stage.frame)
    height, width = stage.depth.shape
    everywhere = np.ones((height, width), dtype=bool)
    _log_points(stream, "/prediction", stage.points, image, everywhere)
    _log_camera(stream, "/prediction", stage.cam_from_world, stage.intrinsics, (height, width))
    _log_depth(stream, "/depth/prediction", stage.depth)


def log_reference_frame(
    stream: rr.RecordingStream,
    reference: Reconstruction,
    index: int,
    *,
    image: UInt8[np.ndarray, "H W 3"],
) -> None:
    """Known points, camera and depth (0 where unknown) of one slot of the reference."""
    stream.set_time(TIMELINE, sequence=int(reference.frames[index]))
    valid = reference.valid[index]
    cameras = reference.cameras
    _log_points(stream, "/reference", reference.points[index], image, valid)
    _log_camera(
        stream,
        "/reference",
        cameras.cam_from_world[index],
        cameras.intrinsics[index],
        cameras.size,
    )
    _log_depth(stream, "/depth/reference", masked(reference.depth[index], valid))


def log_error(stream: rr.RecordingStream, report: Report, frames: list[int]) -> None:
    """Distance of every aligned point to its reference, grey where the reference knows nothing."""
    for frame, errors in zip(frames, report.point_error_map, strict=True):
        stream.set_time(TIMELINE, sequence=frame)
        colours = colorize(errors, low=ERROR_RANGE[0], high=ERROR_RANGE[1])
        stream.log("/error", rr.Image(colours))


def log_disputed(
    stream: rr.RecordingStream, disputed: Bool[np.ndarray, "S H W"], frames: list[int]
) -> None:
    """A layer over the error: what a second judge disputes is covered."""
    classes = rr.AnnotationContext([(0, "agreed", (0, 0, 0, 0)), (1, "disputed", (*DISPUTED, 255))])
    stream.log("/error/disputed", classes, static=True)
    for frame, pixels in zip(frames, disputed, strict=True):
        stream.set_time(TIMELINE, sequence=frame)
        layer = rr.SegmentationImage(pixels.astype(np.uint8), opacity=1.0)
        stream.log("/error/disputed", layer)


def _log_points(
    stream: rr.RecordingStream,
    world: str,
    points: Float[np.ndarray, "h w 3"],
    image: UInt8[np.ndarray, "H W 3"],
    valid: Bool[np.ndarray, "h w"],
) -> None:
    colors = resize(image, (valid.shape[0], valid.shape[1]))
    stream.log(
        f"{world}/points",
        rr.Points3D(points[valid].astype(np.float32, copy=False), colors=colors[valid]),
    )


def _log_camera(
    stream: rr.RecordingStream,
    world: str,
    cam_from_world: Float[np.ndarray, "3 4"],
    intrinsics: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
) -> None:
    height, width = size
    color = PREDICTION if world == "/prediction" else REFERENCE
    stream.log(
        f"{world}/camera",
        rr.Transform3D(
            translation=cam_from_world[:, 3],
            mat3x3=cam_from_world[:, :3],
            relation=rr.TransformRelation.ChildFromParent,  # cam_from_world, OpenCV axes
        ),
        rr.Pinhole(
            image_from_camera=intrinsics,
            resolution=(width, height),
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=FRUSTUM_DEPTH,
            color=color,
        ),
    )
    # Transforms show only their latest state; lines accumulate, so the path of the camera stays.
    outline = frustum(Cameras(cam_from_world[None], intrinsics[None], size))
    stream.log(
        f"{world}/frustums",
        rr.LineStrips3D(outline, colors=color, radii=rr.Radius.ui_points(0.75)),
    )


def frustum(camera: Cameras) -> list[Float[np.ndarray, "N 3"]]:
    """Line strips (world frame) of the first camera's image plane and its four edges."""
    height, width = camera.size
    corners = np.array(
        [[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], dtype=np.float64
    )
    rays = corners @ np.linalg.inv(camera.intrinsics[0].astype(np.float64)).T * FRUSTUM_DEPTH
    pose = camera.world_from_cam[0].astype(np.float64)
    plane = rays @ pose[:, :3].T + pose[:, 3]
    center = pose[:, 3]
    edges = [np.stack([center, corner]) for corner in plane]
    return [np.concatenate([plane, plane[:1]]), *edges]


def _log_depth(stream: rr.RecordingStream, entity: str, depth: Float[np.ndarray, "H W"]) -> None:
    image = rr.DepthImage(
        depth.astype(np.float32, copy=False), depth_range=DEPTH_RANGE, colormap=DEPTH_MAP
    )
    stream.log(entity, image)
