"""`Scene`: one recording of a dataset, which gives clips and what is known about their geometry."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from explorer import _images
from explorer import _taking as taking
from explorer._decode import Picture
from explorer._limits import Limits
from explorer._resize import Fit, collect
from explorer._typing import Float, Int, UInt8
from explorer.backbones.base import never, stop_check
from explorer.camera import Cameras, unproject
from explorer.clip import Clip, VideoInfo
from explorer.data.sampling import clip_cameras, sample_maps
from explorer.errors import DatasetError, NoReconstruction
from explorer.reconstruction import Reconstruction


@dataclass(frozen=True)
class SceneEntry:
    """What a dataset says about a scene without opening it.

    Attributes:
        name: unique in its dataset, and the same from whichever folder the dataset was opened.
        place: the room, site or object that it shows. Scenes that share it must never be divided
            between training and test. Unique in its dataset; one that another dataset calls so too
            is named DATASET::PLACE, as that one's split files do.
        split: "train", "val" or "test" where the dataset publishes one for whole scenes, else None.
            Published splits may share places (7-Scenes does, on purpose).
    """

    name: str
    place: str
    split: str | None = None


@dataclass(frozen=True)
class View:
    """What a dataset knows about one frame.

    Attributes:
        intrinsics: (3, 3) in pixels of the scene's pictures, pixel centres at +0.5.
        cam_from_world: (3, 4) of the camera that took the picture; OpenCV axes, in the dataset's
            unit and any world frame that is the same for all frames of the scene.
        depth: (h, w) float32 z-depth as seen by that camera, over the whole picture in any
            resolution; 0 where nothing is known. None where the dataset has no depth maps.
        confidence: (h, w) >= 0; None stands for 1 wherever there is depth.
    """

    intrinsics: Float[np.ndarray, "3 3"]
    cam_from_world: Float[np.ndarray, "3 4"]
    depth: Float[np.ndarray, "h w"] | None = None
    confidence: Float[np.ndarray, "h w"] | None = None


class Scene(ABC):
    """Frames of one camera through one place, in the order in which they were taken.

    A reader implements `source` and `view`, and `picture` where `source` is not an image file.
    Nothing is kept in memory between calls but what the reader's constructor has read.

    Attributes:
        dataset: id of its dataset.
        name, place, split: see `SceneEntry`.
        geometry: where depth comes from, for people: "depth camera", "multi-view stereo", ...;
            None where the scene has no depth, and `reconstruction` only says so.
        unit: "m" where lengths are metric, None where the dataset's unit means nothing.
        treatment: what is done to decoded pictures, e.g. which distortion is taken out; part of the
            clips' hashes.
    """

    def __init__(
        self,
        entry: SceneEntry,
        *,
        dataset: str,
        frames: int,
        geometry: str | None,
        unit: str | None = None,
        fps: float = _images.FPS,
        treatment: str = "",
    ) -> None:
        self.dataset = dataset
        self.name, self.place, self.split = entry.name, entry.place, entry.split
        self.geometry = geometry
        self.unit = unit
        self.fps = fps
        self.treatment = treatment
        self._frames = frames

    def __len__(self) -> int:
        """Number of frames."""
        return self._frames

    @abstractmethod
    def source(self, frame: int) -> bytes:
        """The bytes that the frame's picture is decoded from, as the dataset stores them.

        Raises:
            DatasetError: the file is missing or cannot be read.
        """

    @abstractmethod
    def view(self, frame: int) -> View:
        """Camera and depth of a frame.

        Raises:
            DatasetError: a file is missing, damaged or of an unexpected shape; a pose is no pose.
        """

    def picture(self, frame: int, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
        """The RGB picture of a frame from its `source`; all of one scene have one size.

        Raises:
            ClipError: the image is damaged or too large.
        """
        name = f"frame {frame} of {self.name}"
        Limits().check_pixels(name, *_images.header_size(name, data))
        return _images.decode_image(name, data, upright=False)

    def seconds(self, frames: Sequence[int]) -> Float[np.ndarray, " T"]:
        """(T,) when frames were taken, in seconds after the first one of the scene."""
        return np.asarray(frames, dtype=np.float64) / self.fps

    def official_start(self, count: int) -> int:
        """Where a window of consecutive frames starts by the dataset's own rule; 0 without one.

        Raises:
            DatasetError: the scene is too short for it, or the rule rejects the scene; says why.
        """
        if count > len(self):
            raise DatasetError(f"{self.name} has {len(self)} frames, too few for {count}")
        return 0

    def info(self) -> VideoInfo:
        """What a page must know to let a person place the window; decodes one picture."""
        height, width = self.picture(0, self.source(0)).shape[:2]
        seconds = float(self.seconds([len(self) - 1])[0]) + 1.0 / self.fps
        return VideoInfo(len(self), self.fps, seconds, (height, width))

    def clip(
        self,
        *,
        start: int = 0,
        stride: int = 1,
        count: int | None = 17,
        size: tuple[int, int] | None = (144, 256),
        fit: Fit = "crop",
        limits: Limits | None = None,
    ) -> Clip:
        """Decode a window, exactly as `explorer.clip.load_clip` does it from a video.

        The source's hash is that of the window's pictures alone: a scene may hold gigabytes.

        Args:
            start: first frame of the window.
            stride: distance between the frames taken.
            count: frames taken; None takes all up to the end.
            size: (height, width) of the frames, by area averaging where they shrink. None keeps the
                pictures' pixels.
            fit: "crop" takes the largest centred part of that shape, "stretch" the whole picture.
            limits: bounds that are checked before frames are decoded.

        Raises:
            ClipError: a picture is damaged, or the window does not fit the scene.
            DatasetError: a file is missing or cannot be read.
        """
        limits = limits or Limits()
        taking.check_window(start, stride, count, size)
        taken = taking.window(self.name, len(self), start, stride, count, limits)
        digest = hashlib.sha256(self.treatment.encode())

        def pictures() -> Iterator[Picture]:
            for frame in taken:
                data = self.source(frame)
                digest.update(hashlib.sha256(data).digest())
                yield Picture(self.picture(frame, data), 1.0)

        frames, source_size, crop = collect(
            self.name, pictures(), len(taken), size, limits, fit=fit
        )
        return Clip(
            frames=frames,
            timestamps=self.seconds(taken),
            content_hash=taking.content_hash(digest.hexdigest(), taken, size, fit),
            name=f"{self.dataset}::{self.name}",
            source_hash=digest.hexdigest(),
            source_frames=np.asarray(taken, dtype=np.int64),
            source_size=source_size,
            crop=crop,
            fit=fit,
            scene=self,
        )

    def cameras(self, clip: Clip) -> Cameras:
        """The cameras of a clip's frames, in pixels of the clip and the dataset's world and unit.

        For scenes without depth as well.

        Raises:
            DatasetError: the clip is not of this scene, or the dataset's files are damaged.
        """
        self._check(clip)
        return clip_cameras(clip, [self.view(int(frame)) for frame in clip.source_frames])

    def reconstruction(
        self, clip: Clip, *, should_stop: Callable[[], bool] = never
    ) -> Reconstruction:
        """What the dataset knows about the geometry of a clip of this scene, at all its frames.

        Maps are sampled at the centres of the clip's pixels, nearest neighbour, so that no depth is
        mixed across an edge; intrinsics follow the crop and the resizing exactly, and points are
        the sampled depths unprojected. Normalised like every reference; `provenance["unit"]` is the
        length of one unit in `provenance["unit_name"]`, "m" or None for the dataset's own unit.

        Raises:
            NoReconstruction: the scene has no depth, or none in the clip's first frame.
            DatasetError: the clip is not of this scene, or the dataset's files are damaged.
            Cancelled: `should_stop` became true.
        """
        self._check(clip)
        if self.geometry is None:
            raise NoReconstruction(f"{self.dataset} has cameras but no depth for {self.name}")
        views, maps = [], []
        for frame in clip.source_frames:
            stop_check(should_stop)
            view = self.view(int(frame))
            maps.append(sample_maps(clip, view))
            views.append(View(view.intrinsics, view.cam_from_world))
        depth, confidence = (np.stack(each) for each in zip(*maps, strict=True))
        cameras = clip_cameras(clip, views)
        whole = Reconstruction(
            frames=np.arange(len(clip), dtype=np.int64),
            depth=depth,
            points=unproject(depth, cameras),
            confidence=confidence,
            cameras=cameras,
            source=f"{self.dataset}: {self.geometry}",
            provenance=self.provenance(clip),
        )
        return self.normalized(whole)

    def provenance(self, clip: Clip) -> dict[str, object]:
        """What a reconstruction says about where it is from."""
        return {
            "dataset": self.dataset,
            "scene": self.name,
            "geometry": self.geometry,
            "unit_name": self.unit,
            "source_hash": clip.source_hash,
        }

    def normalized(self, whole: Reconstruction) -> Reconstruction:
        """In the first camera's frame and unit mean distance.

        Raises:
            NoReconstruction: nothing is known in the first frame.
        """
        if not whole.valid[0].any():
            raise NoReconstruction(
                f"{self.name} has no depth in the first frame of this window, so there is no "
                "length to measure in: start at another frame"
            )
        return whole.normalized()

    def _check(self, clip: Clip) -> None:
        frames: Int[np.ndarray, " T"] = clip.source_frames
        if clip.scene is not None and (clip.scene.dataset, clip.scene.name) != (
            self.dataset,
            self.name,
        ):
            raise DatasetError(
                f"the clip {clip.name} is not of {self.dataset}::{self.name}: take one of its clips"
            )
        if len(frames) == 0 or frames.min() < 0 or frames.max() >= len(self):
            raise DatasetError(f"the clip {clip.name} has frames that {self.name} lacks")
