"""Fill a store with clips and their reference geometry, one scene after the other.

What is done stays done: a run that is killed loses the clip in hand, and the next run goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from explorer import references
from explorer._resize import enlarged
from explorer.backbones.base import never, stop_check
from explorer.clip import Clip
from explorer.data.dataset import Dataset, SceneEntry
from explorer.data.prepared.clips import Payload, encode_clip
from explorer.data.prepared.manifest import (
    SPLIT_NAME,
    Manifest,
    Settings,
    sole_writer,
    start_manifest,
    with_failure,
)
from explorer.data.prepared.shards import Segment, Shard, open_shards
from explorer.data.prepared.sides import split_of, split_scene
from explorer.data.scene import Scene
from explorer.data.splits import Split, SplitScene, write_split
from explorer.errors import Cancelled, DatasetError, EmergeError, ReferenceError3D, SplitError
from explorer.reconstruction import Reconstruction
from explorer.store import canonical_json

SHARD_BYTES = 1 << 30
SUFFIXES = {"depth": "depth.png", "confidence": "confidence.png", "points": "points.f32"}


@dataclass(frozen=True)
class Step:
    """One scene is dealt with.

    Attributes:
        scene: its name.
        done, total: scenes so far and in all, those of earlier runs among them.
        seconds: that it took.
        bytes: that it takes; 0 for one that failed.
        failed: why it failed, or None.
    """

    scene: str
    done: int
    total: int
    seconds: float
    bytes: int
    failed: str | None


def prepare(
    dataset: Dataset,
    out: Path,
    settings: Settings,
    *,
    limit: int | None = None,
    device: str = "cpu",
    split_seed: int | None = None,
    by_place: bool = False,
    retry: bool = False,
    shard_bytes: int = SHARD_BYTES,
    on_step: Callable[[Step], None] = lambda step: None,
    should_stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Prepare the scenes of a dataset that a store does not have yet.

    A scene that fails is written down with its reason and the next one is begun.

    Args:
        dataset: to read.
        out: folder of the store; made when missing.
        settings: of all its clips.
        limit: only the first scenes of the dataset, this many.
        device: where a reference's network runs.
        split_seed: of the sides of places; another one than before divides the store anew.
        by_place: leave the dataset's own sides alone, as where they share places.
        retry: try those again that failed before.
        shard_bytes: a file ends before the clip that would make it larger; at least one clip.
        on_step: called after each scene.
        should_stop: asked between the steps of a scene.

    Returns:
        JSON-ready: scenes prepared, failed and left, bytes, precision, sides of the split.

    Raises:
        DatasetError: `out` was prepared with other settings or holds other things, or cannot be
            written.
        ReferenceError3D: there is no such reference, it cannot be used here, or it is a choice
            among several.
        SplitError: new scenes would move old ones to the other side.
        Cancelled: `should_stop` became true; what is done stays.
    """
    references.check(settings.reference)
    if settings.reference == references.FALLBACK:
        raise ReferenceError3D(
            f"{settings.reference} asks another judge for each clip, and a training set has one: "
            "choose it; `emerge3d references` lists them"
        )
    entries = list(dataset.entries[:limit])
    try:
        with sole_writer(out):
            manifest = start_manifest(out, settings, split_seed=split_seed, by_place=by_place)
            work = _Work(dataset, out, manifest, device, shard_bytes)
            work.plan_split(dataset.entries)
            try:
                work.run(entries, retry=retry, on_step=on_step, should_stop=should_stop)
            finally:
                work.close()
    except OSError as error:
        raise DatasetError(
            f"{out} cannot be written ({error}): make room or choose another folder"
        ) from error
    return work.manifest.summary


class _Work:
    """State of one run."""

    def __init__(
        self, dataset: Dataset, out: Path, manifest: Manifest, device: str, shard_bytes: int
    ) -> None:
        self.dataset, self.out, self.manifest = dataset, out, manifest
        self.device, self.shard_bytes = device, shard_bytes
        self.shards = open_shards(out) or [Shard(out, 0)]
        self.left = 0

        self.clips = [entry for shard in self.shards for entry in shard.clips]
        self.recordings = {entry["split"]["identity"]: entry["scene"] for entry in self.clips}

    def plan_split(self, entries: Iterable[SceneEntry]) -> None:
        """Find out before hours of work, not after them, that the sides cannot be kept.

        Args:
            entries: all of the dataset, of which this run may only prepare some.
        """
        known = {entry["scene"] for entry in self.clips}
        coming = [
            split_scene(self.dataset.card.id, entry, identity=f"not prepared: {entry.name}")
            for entry in entries
            if entry.name not in known
        ]
        try:
            self.split(coming)
        except SplitError as error:
            if self.clips:
                raise SplitError(
                    f"{self.out} cannot take more scenes: {error}. --by-place divides it anew"
                ) from None
            # The authors' sides share places, as those of 7-Scenes do on purpose.
            self.manifest = replace(self.manifest, official=False)
            self.manifest.write(self.out)
            self.split(coming)

    def split(self, coming: Iterable[SplitScene] = ()) -> Split:
        """Sides of all clips here, and of those to come."""
        return split_of(self.out, self.manifest, self.clips, coming)

    def run(
        self,
        entries: list[SceneEntry],
        *,
        retry: bool,
        on_step: Callable[[Step], None],
        should_stop: Callable[[], bool],
    ) -> None:
        known = {entry["scene"] for entry in self.clips}
        skipped = known if retry else known | set(self.manifest.failed)
        todo = [entry for entry in entries if entry.name not in skipped]
        self.left = len(todo)
        for number, entry in enumerate(todo, start=1):
            stop_check(should_stop)
            begin = time.perf_counter()
            size, reason = 0, None
            try:
                made = self.make(entry, begin, should_stop)
            except (Cancelled, _Unusable):
                raise
            except EmergeError as error:
                reason = str(error)
            except Exception as error:  # one scene must not stop a run over days
                reason = f"{type(error).__name__}: {error}"
            else:
                size = self.append(made)
            if reason is not None or entry.name in self.manifest.failed:
                self.manifest = with_failure(self.manifest, entry.name, reason)
                self.manifest.write(self.out)
            self.left -= 1
            spent = time.perf_counter() - begin
            done = len(entries) - len(todo) + number
            on_step(Step(entry.name, done, len(entries), spent, size, reason))

    def make(self, entry: SceneEntry, begin: float, should_stop: Callable[[], bool]) -> _Made:
        """All about one scene, in memory."""
        settings = self.manifest.settings
        scene = self.dataset.open(entry)
        # The dataset's own rule is about consecutive frames.
        start = scene.official_start((settings.frames - 1) * settings.stride + 1)
        clip = _decode(scene, start, settings, settings.size)
        if clip.source_hash in self.recordings:
            raise DatasetError(f"it is the same recording as {self.recordings[clip.source_hash]}")
        seconds = {"decode": time.perf_counter() - begin}
        found = self.reference(scene, clip, start, should_stop)
        seconds["reference"] = time.perf_counter() - begin - seconds["decode"]
        larger = picture_size(clip, settings.scale)
        pictures = clip if larger == clip.size else _decode(scene, start, settings, larger)
        try:
            encoded = encode_clip(pictures, found, quality=settings.quality)
        except DatasetError as error:
            raise _Unusable(str(error)) from None
        provenance = json.loads(canonical_json(found.provenance))  # numpy's numbers are no JSON
        provenance.pop("note", None)  # for those who look at it now
        record = {
            **encoded.record,
            "scene": entry.name,
            "place": entry.place,
            "dataset": self.dataset.card.id,
            "geometry": scene.geometry,
            "unit_name": provenance.get("unit_name", scene.unit),
            "window": {"start": start, "stride": settings.stride, "count": len(clip)},
            "source": {
                "hash": clip.source_hash,
                "frames": clip.source_frames.tolist(),
                "size": list(clip.source_size),
                "crop": list(clip.crop),
            },
            "reference": {
                "id": settings.reference,
                "source": found.source,
                "provenance": provenance,
            },
        }
        seconds["total"] = time.perf_counter() - begin
        listed = {
            "scene": entry.name,
            "split": asdict(split_scene(self.dataset.card.id, entry, identity=clip.source_hash)),
            "window": record["window"],
            "picture_size": list(pictures.size),
            "reference": {"id": settings.reference, **provenance},
            "unit": provenance.get("unit"),
            "unit_name": record["unit_name"],
            "precision": encoded.precision,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }
        return _Made(encoded.payload, record, listed)

    def reference(
        self, scene: Scene, clip: Clip, start: int, should_stop: Callable[[], bool]
    ) -> Reconstruction:
        settings = self.manifest.settings
        context = references.Context(
            should_stop=should_stop,
            decode=lambda size: _decode(scene, start, settings, size),
            device=self.device,
        )
        found = references.reconstruct(settings.reference, clip, context)
        if found is None:
            raise DatasetError(f"the reference {settings.reference} knows nothing about this clip")
        if not len(found.frames) or found.frames[0] != 0 or not found.valid[0].any():
            raise DatasetError(
                f"the reference {settings.reference} has nothing for the first frame, which gives "
                "the unit of length"
            )
        weights = found.provenance.get("weights")
        if not self.clips:
            self.manifest = replace(self.manifest, weights=weights)
            self.manifest.write(self.out)
        elif weights != self.manifest.weights:
            raise _Unusable(
                f"{self.out} was prepared with other weights of {settings.reference} "
                f"({str(self.manifest.weights)[:12]}) than are here ({str(weights)[:12]}): choose "
                "another folder, or restore those weights"
            )
        return found

    def append(self, made: _Made) -> int:
        """Put a scene on disk; returns its bytes."""
        # Not their count: a damaged shard may have been removed.
        number = max((int(entry["number"]) for entry in self.clips), default=-1) + 1
        suffixes = {"pictures": made.record["pictures"]["suffix"], **SUFFIXES}
        payload = {
            kind: [(f"{index:03d}.{suffixes[kind]}", data) for index, data in enumerate(members)]
            for kind, members in made.payload.items()
        }
        segment = Segment.of(f"{number:06d}", made.record, payload)
        shard = self.shards[-1]
        if shard.clips and not shard.has_room(segment, self.shard_bytes):
            shard = Shard(self.out, shard.number + 1)
            self.shards.append(shard)
        shard.append(segment, {"number": number, **made.listed})
        self.clips.append(shard.clips[-1])
        self.recordings[made.listed["split"]["identity"]] = made.listed["scene"]
        return len(segment.data)

    def close(self) -> None:
        """Write what is known now: the sides of the split, and the counts."""
        split = self.split()
        if self.clips:
            write_split(self.out / SPLIT_NAME, split)
        self.manifest = replace(self.manifest, summary=self.summary(split))
        self.manifest.write(self.out)

    def summary(self, split: Split) -> dict[str, Any]:
        clips = self.clips
        measured: dict[str, float] = {}
        for name in ("depth_error", "depth_error_mean", "confidence_error"):
            measured[name] = max((entry["precision"][name] for entry in clips), default=0.0)
        noisy = [entry["precision"]["picture_psnr_db"] for entry in clips]
        values = [value for value in noisy if value is not None]
        return {
            "prepared": len(clips),
            "failed": len(self.manifest.failed),
            "left": self.left,
            "bytes": sum(entry["bytes"] for entry in clips),
            "picture_sizes": sorted({tuple(entry.get("picture_size", ())) for entry in clips}),
            "shards": len([shard for shard in self.shards if shard.clips]),
            "seconds": round(sum(entry["seconds"]["total"] for entry in clips), 3),
            "precision": {**measured, "picture_psnr_db": min(values, default=None)},
            "split": {
                **split.reference,
                "official": self.manifest.official,
                "sides": {side: len(scenes) for side, scenes in split.sides.items()},
            },
        }


@dataclass(frozen=True)
class _Made:
    """One scene before it is on disk: bytes, the record to decode them, the index's entry."""

    payload: Payload
    record: dict[str, Any]
    listed: dict[str, Any]


class _Unusable(DatasetError):
    """No other clip would do better, so the run ends."""


def _decode(scene: Scene, start: int, settings: Settings, size: tuple[int, int]) -> Clip:
    return scene.clip(start=start, stride=settings.stride, count=settings.frames, size=size)


def picture_size(clip: Clip, most: float) -> tuple[int, int]:
    """(height, width) at which the pictures of a clip are kept: at most so many times as large."""
    return enlarged(clip.size, clip.source_size, clip.crop, most)
