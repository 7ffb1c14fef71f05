"""A scene of a store: any few frames of it without decoding the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from explorer._sparse import splat
from explorer._typing import Float, Int, UInt8
from explorer.backbones.base import never, stop_check
from explorer.camera import Cameras, unproject
from explorer.clip import Clip
from explorer.data.prepared.clips import decode_cameras
from explorer.data.prepared.codes import LogCode, decode_map, decode_picture
from explorer.data.prepared.shards import Shard
from explorer.data.sampling import clip_cameras, sample_maps
from explorer.data.scene import Scene, SceneEntry, View
from explorer.errors import DatasetError, NoReconstruction
from explorer.reconstruction import Reconstruction


@dataclass(frozen=True)
class Sample:
    """A few frames of a scene, in the frame and unit of the whole clip.

    Attributes:
        pictures: (S, h, w, 3) uint8 RGB, as they are kept.
        depth: (S, H, W) z-depth; 0 where nothing is known.
        confidence: (S, H, W) >= 0; 0 where nothing is known.
        cameras: S cameras with `size` (H, W).
    """

    pictures: UInt8[np.ndarray, "S h w 3"]
    depth: Float[np.ndarray, "S H W"]
    confidence: Float[np.ndarray, "S H W"]
    cameras: Cameras


class PreparedScene(Scene):
    """One prepared clip; its frames count from 0.

    Attributes:
        identity: sha256 of the recording, see `SplitScene`.
        sha256: of all that is kept of it.
        picture_size: (height, width) of the pictures, as they are kept.
        record: what was written down about it, see docs/prepare.md.
    """

    def __init__(self, entry: SceneEntry, shard: Shard, listed: dict[str, Any]) -> None:
        self._shard, self._listed = shard, listed
        self.sha256: str = listed["sha256"]
        self.record = shard.read_record(listed)
        try:
            self.identity: str = self.record["source"]["hash"]
            self._times = np.asarray(self.record["timestamps"], dtype=np.float64)
            self._slots = {
                int(frame): slot for slot, frame in enumerate(self.record["maps"]["frames"])
            }
            self._cameras = decode_cameras(self.record)
            height, width = self.record["pictures"]["size"]
            self.picture_size: tuple[int, int] = (int(height), int(width))
            reference, self.sparse = self.record["reference"], bool(self.record["maps"]["sparse"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{shard.path} is of another version ({error!r})") from None
        gaps = np.diff(self._times)
        super().__init__(
            entry,
            dataset="prepared",
            frames=len(self._times),
            geometry=f"{reference['source']}, prepared",
            unit=self.record["unit_name"],
            fps=float(1 / gaps.mean()) if len(gaps) and gaps.mean() > 0 else 30.0,
        )

    @property
    def geometry_frames(self) -> Int[np.ndarray, " S"]:
        """Frames that the reference knows."""
        return np.array(sorted(self._slots), dtype=np.int64)

    def seconds(self, frames: Sequence[int]) -> Float[np.ndarray, " T"]:
        return self._times[np.asarray(frames, dtype=np.int64)] - self._times[0]

    def source(self, frame: int) -> bytes:
        return self._member("pictures", frame)

    def picture(self, frame: int, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
        return decode_picture(f"frame {frame} of {self.name}", data)

    def pictures(self, frames: Sequence[int]) -> UInt8[np.ndarray, "S H W 3"]:
        """Pictures of some frames, as they are kept.

        Raises:
            DatasetError: a frame that the scene does not have, or damaged files.
        """
        return np.stack([self.picture(int(each), self.source(int(each))) for each in frames])

    def view(self, frame: int) -> View:
        slot = self._slot(frame)
        # Intrinsics of the maps, for pictures of another size.
        cameras = self._cameras.select([slot]).resized(*self.picture_size)
        depth, confidence = self._depths([slot])
        return View(cameras.intrinsics[0], cameras.cam_from_world[0], depth[0], confidence[0])

    def sample(self, frames: Sequence[int]) -> Sample:
        """Pictures and geometry of some frames; reads and decodes nothing else.

        Raises:
            DatasetError: a frame that the reference does not know, or damaged files.
        """
        slots = [self._slot(int(frame)) for frame in frames]
        depth, confidence = self._depths(slots)
        cameras = self._cameras.select(slots)
        return Sample(self.pictures(frames), depth, confidence, cameras)

    def maps(self, frames: Sequence[int]) -> Reconstruction:
        """Geometry of some frames at the size that it is kept in, in the frame and unit of the
        whole clip; `frames` are those of the scene.

        Raises:
            DatasetError: a frame that the reference does not know, or damaged files.
        """
        slots = [self._slot(int(frame)) for frame in frames]
        cameras = self._cameras.select(slots)
        if self.sparse:
            found = [self._splatted(slot, self._cameras) for slot in slots]
            depth, points, confidence = (np.stack(each) for each in zip(*found, strict=True))
        else:
            depth, confidence = self._depths(slots)
            known = (depth > 0) & (confidence > 0)
            points = np.where(known[..., None], unproject(depth, cameras), 0.0).astype(np.float32)
        return Reconstruction(
            frames=np.asarray(frames, dtype=np.int64),
            depth=depth,
            points=points,
            confidence=confidence,
            cameras=cameras,
            source=self.record["reference"]["source"],
            provenance=self._provenance(),
            sparse=self.sparse,
        )

    def reconstruction(
        self, clip: Clip, *, should_stop: Callable[[], bool] = never
    ) -> Reconstruction:
        """The prepared geometry at the pixels of a clip of this scene.

        At those of its frames that the reference knows, the first one always among them.
        """
        self._check(clip)
        known = np.flatnonzero([int(frame) in self._slots for frame in clip.source_frames])
        if not len(known) or known[0] != 0:
            raise NoReconstruction(
                f"{self.name} was prepared without geometry for the first frame of this window: "
                f"start at one of {self.geometry_frames.tolist()}"
            )
        parts, views = [], []
        for frame in clip.source_frames[known]:
            stop_check(should_stop)
            view = self.view(int(frame))
            views.append(replace(view, depth=None, confidence=None))
            if not self.sparse:
                parts.append(sample_maps(clip, view))
        cameras = clip_cameras(clip, views)
        if self.sparse:
            slots = [self._slot(int(frame)) for frame in clip.source_frames[known]]
            splats = [self._splatted(slot, cameras, k) for k, slot in enumerate(slots)]
            depth, points, confidence = (np.stack(each) for each in zip(*splats, strict=True))
        else:
            depth, confidence = (np.stack(each) for each in zip(*parts, strict=True))
            points = np.where(depth[..., None] > 0, unproject(depth, cameras), 0.0)
        whole = Reconstruction(
            frames=known,
            depth=depth,
            points=points.astype(np.float32),
            confidence=confidence,
            cameras=cameras,
            source=self.record["reference"]["source"],
            provenance=self.provenance(clip),
            sparse=self.sparse,
        )
        return self.normalized(whole)

    def provenance(self, clip: Clip) -> dict[str, object]:
        return {**self._provenance(), "source_hash": clip.source_hash}

    def _provenance(self) -> dict[str, Any]:
        return {
            **self.record["reference"]["provenance"],
            "dataset": self.record["dataset"],
            "scene": self.name,
            "prepared": self.sha256,
            "unit_name": self.unit,
        }

    def _slot(self, frame: int) -> int:
        if frame not in self._slots:
            raise DatasetError(
                f"{self.name} was prepared without geometry for frame {frame}; it has "
                f"{self.geometry_frames.tolist()}"
            )
        return self._slots[frame]

    def _member(self, kind: str, index: int) -> bytes:
        members = self.record["members"][kind]
        if not 0 <= index < len(members):
            raise DatasetError(f"{self.name} has frames 0 to {len(members) - 1}, not {index}")
        return self._shard.read(self._listed, [members[index]])[0]

    def _depths(
        self, slots: Sequence[int]
    ) -> tuple[Float[np.ndarray, "S H W"], Float[np.ndarray, "S H W"]]:
        """Depth and confidence at the size that they are kept in."""
        if self.sparse:
            found = [self._splatted(slot, self._cameras)[::2] for slot in slots]
        else:
            found = [(self._map("depth", slot), self._map("confidence", slot)) for slot in slots]
        depth, confidence = zip(*found, strict=True)
        return np.stack(depth), np.stack(confidence)

    def _map(self, kind: str, slot: int) -> Float[np.ndarray, "H W"]:
        codes = decode_map(f"{kind} of {self.name}", self._member(kind, slot))
        return self._codes[kind].decode(codes)

    @cached_property
    def _codes(self) -> dict[str, LogCode]:
        stated = self.record["maps"]
        return {kind: LogCode.from_dict(stated[kind]) for kind in ("depth", "confidence")}

    def _splatted(
        self, slot: int, cameras: Cameras, index: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Depth, points and confidence of a frame's sparse points seen through one camera."""
        values = np.frombuffer(self._member("points", slot), dtype="<f4").reshape(-1, 4)
        camera = slot if index is None else index
        return splat(
            values[:, :3],
            values[:, 3],
            cameras.cam_from_world[camera],
            cameras.intrinsics[camera],
            size=cameras.size,
        )
