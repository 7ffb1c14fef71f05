"""Datasets in their published layouts, filmed in one procedural room, so that all is known exactly.

Each `write_*` gives back what its pictures show: `Truth` of the colour camera.
"""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file

from explorer.camera import Cameras, unproject
from explorer.data.readers import tum
from explorer.data.readers.sevenscenes import COLOR_FROM_DEPTH
from explorer.data.world.render import render
from explorer.data.world.scene import sample_scenes
from explorer.data.world.spec import WorldSpec

FRAMES = 5
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Truth:
    """(T, H, W, 3) rgb, (T, H, W) depth in the dataset's unit, and the cameras of both."""

    rgb: np.ndarray
    depth: np.ndarray
    cameras: Cameras

    def points(self) -> np.ndarray:
        """(T, H, W, 3) in the first camera's frame."""
        return unproject(self.depth.astype(np.float64), self.cameras.relative_to_first())

    def cropped(self, top: int, left: int, height: int, width: int) -> Truth:
        """A part of it."""
        matrix = self.cameras.intrinsics.copy()
        matrix[:, :2, 2] -= [left, top]
        rows, columns = slice(top, top + height), slice(left, left + width)
        cameras = Cameras(self.cameras.cam_from_world, matrix, (height, width))
        return Truth(self.rgb[:, rows, columns], self.depth[:, rows, columns], cameras)


@functools.cache
def room():
    return sample_scenes([1_000_003], WorldSpec(rooms=1.0, shake=0.0, clutter=0.0))


def path_poses(count: int = FRAMES) -> np.ndarray:
    """(T, 4, 4) world to camera, as a camera walks through the room."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3] = room().cam_from_world[0, :count]
    return poses


@functools.cache
def _film(poses: bytes, count: int, focal: float, height: int, width: int) -> Truth:
    scenes = room()
    cam_from_world = np.frombuffer(poses, dtype=np.float64).reshape(count, 4, 4)[:, :3]
    filmed = replace(
        scenes,
        cam_from_world=cam_from_world[None].astype(np.float32),
        axes=np.repeat(scenes.axes[:, :1], count, axis=1),
        center=np.repeat(scenes.center[:, :1], count, axis=1),
        focal=np.array([focal], dtype=np.float32),
    )
    found = render(filmed, height=height, width=width, supersample=1)
    matrix = np.diag([focal * width, focal * width, 1.0])
    matrix[:2, 2] = width / 2, height / 2
    return Truth(
        found.images[0].numpy(),
        found.depth[0].numpy(),
        Cameras(cam_from_world.copy(), np.tile(matrix, (count, 1, 1)), (height, width)),
    )


def film(
    poses: np.ndarray | None = None, *, focal: float = 0.9, size: tuple[int, int] = (48, 64)
) -> Truth:
    """What a camera of a focal length (in widths) sees from some poses."""
    poses = path_poses() if poses is None else np.ascontiguousarray(poses, dtype=np.float64)
    return _film(poses.tobytes(), len(poses), focal, *size)


def write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(path), image)


def write_text(path: Path, matrix: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(" ".join(repr(float(x)) for x in row) for row in matrix) + "\n")


def millimetres(depth: np.ndarray) -> np.ndarray:
    return np.rint(depth * 1000).astype(np.uint16)


def integer_centers(matrix: np.ndarray) -> np.ndarray:
    """K for whose users the first pixel's centre is at 0."""
    found = matrix.copy()
    found[:2, 2] -= 0.5
    return found


def write_sevenscenes(root: Path, *, sequences: tuple[str, ...] = ("seq-01",)) -> Truth:
    """ROOM chess, its depth by a camera beside the colour camera, as a Kinect's is."""
    size = (48, 64)
    depth_poses = path_poses()
    seen = film(COLOR_FROM_DEPTH @ depth_poses, focal=525 / 640, size=size)
    measured = film(depth_poses, focal=585 / 640, size=size)
    for sequence in sequences:
        for frame in range(FRAMES):
            stem = root / "chess" / sequence / f"frame-{frame:06d}"
            write_png(stem.with_name(f"{stem.name}.color.png"), seen.rgb[frame])
            stored = millimetres(measured.depth[frame])
            stored[24, 32] = 65535
            write_png(stem.with_name(f"{stem.name}.depth.png"), stored)
            write_text(stem.with_name(f"{stem.name}.pose.txt"), np.linalg.inv(depth_poses[frame]))
    (root / "chess" / "TrainSplit.txt").write_text("sequence1\n")
    (root / "chess" / "TestSplit.txt").write_text("sequence2\n")
    return seen


def write_scannet(root: Path, name: str = "scene0001_00") -> Truth:
    """Colour at twice the depth camera's resolution, another focal length, one lost pose."""
    poses = path_poses()
    seen, measured = film(poses, focal=0.9, size=(96, 128)), film(poses, focal=0.85, size=(48, 64))
    folder = root / name
    for number in range(FRAMES):
        write_png(folder / "color" / f"{number * 10}.png", seen.rgb[number])
        write_png(folder / "depth" / f"{number * 10}.png", millimetres(measured.depth[number]))
        pose = np.linalg.inv(poses[number]) if number != 2 else np.full((4, 4), -np.inf)
        write_text(folder / "pose" / f"{number * 10}.txt", pose)
    for camera, truth in (("color", seen), ("depth", measured)):
        matrix = np.eye(4)
        matrix[:3, :3] = integer_centers(truth.cameras.intrinsics[0])
        write_text(folder / "intrinsic" / f"intrinsic_{camera}.txt", matrix)
        write_text(folder / "intrinsic" / f"extrinsic_{camera}.txt", np.eye(4))
    kept = [0, 1, 3, 4]
    return Truth(seen.rgb[kept], seen.depth[kept], seen.cameras.select(kept))


def write_tum(root: Path, name: str = "recording", *, late: float = 0.012) -> Truth:
    """A camera on a straight path at constant speed; depth is `late` seconds after colour."""
    start, end = (np.linalg.inv(pose) for pose in path_poses()[[0, 4]])
    turn = cv2.Rodrigues(start[:3, :3].T @ end[:3, :3])[0]

    def world_from_cam(time: float) -> np.ndarray:
        share = time / (0.033 * FRAMES)
        pose = np.eye(4)
        pose[:3, :3] = start[:3, :3] @ cv2.Rodrigues(turn * share)[0]
        pose[:3, 3] = (1 - share) * start[:3, 3] + share * end[:3, 3]
        return pose

    times = 0.02 + 0.033 * np.arange(FRAMES)
    seen = film(np.stack([np.linalg.inv(world_from_cam(time)) for time in times]), focal=0.85)
    later = [np.linalg.inv(world_from_cam(time + late)) for time in times]
    measured = film(np.stack(later), focal=0.85)
    folder = root / name
    lists: dict[str, list[str]] = {"rgb": ["# color images"], "depth": ["# depth maps"]}
    for number, time in enumerate(1000 + times):
        write_png(folder / f"rgb/{time:.6f}.png", seen.rgb[number])
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        stored = np.rint(measured.depth[number] * tum.DEPTH_FACTOR).astype(np.uint16)
        write_png(folder / f"depth/{time + late:.6f}.png", stored)
        lists["depth"].append(f"{time + late:.6f} depth/{time + late:.6f}.png")
    rows = ["# timestamp tx ty tz qx qy qz qw"]
    for time in np.arange(0, 0.25, 0.01):
        pose = world_from_cam(time)
        vector = cv2.Rodrigues(pose[:3, :3])[0].ravel()
        angle = np.linalg.norm(vector)
        quaternion = [*(np.sin(angle / 2) * vector / angle), np.cos(angle / 2)]
        rows.append(" ".join(repr(float(x)) for x in [1000 + time, *pose[:3, 3], *quaternion]))
    lists["groundtruth"] = rows
    for each, lines in lists.items():
        (folder / f"{each}.txt").write_text("\n".join(lines) + "\n")
    matrix = integer_centers(seen.cameras.intrinsics[0])
    color = {"fx": matrix[0, 0], "fy": matrix[1, 1], "cx": matrix[0, 2], "cy": matrix[1, 2]}
    calibration = {"color": {**color, "size": list(seen.cameras.size)}}
    (folder / "calibration.json").write_text(json.dumps(calibration))
    return seen


def write_co3d(root: Path, *, count: int = FRAMES, unit: float = 0.3) -> Truth:
    """Category apple: a portrait video whose principal point is not in the middle."""
    poses = path_poses(count)
    poses[:, :3, 3] *= unit
    seen = film(path_poses(count), focal=0.9, size=(112, 90)).cropped(0, 6, 112, 84)
    cameras = Cameras(poses[:, :3], seen.cameras.intrinsics, seen.cameras.size)
    seen = Truth(seen.rgb, seen.depth * unit, cameras)
    height, width = seen.cameras.size
    scale, frames = 0.5, []
    flip = np.diag([-1.0, -1.0, 1.0])
    for number in range(count):
        name = f"apple/1_2_3/%s/frame{number + 1:06d}"
        picture, depth = f"{name % 'images'}.png", f"{name % 'depths'}.png.geometric.png"
        write_png(root / picture, seen.rgb[number])
        stored = (seen.depth[number] / scale).astype(np.float16)
        stored[50, 10] = np.inf
        write_png(root / depth, stored.view(np.uint16))
        sure = np.full((height, width), 255, dtype=np.uint8)
        sure[:, 70:] = 0
        write_png(root / f"{name % 'depth_masks'}.png", sure)
        inside = np.zeros((height, width), dtype=np.uint8)
        inside[30:90, 20 + number : 60 + number] = 255  # most of it within the 16:9 part
        write_png(root / f"{name % 'masks'}.png", inside)
        matrix = seen.cameras.intrinsics[number]
        half = min(height, width) / 2
        frames.append(
            {
                "sequence_name": "1_2_3",
                "frame_number": number,
                "frame_timestamp": number / 20,
                "image": {"path": picture, "size": [height, width]},
                "depth": {
                    "path": depth,
                    "scale_adjustment": scale,
                    "mask_path": f"{name % 'depth_masks'}.png",
                },
                "mask": {"path": f"{name % 'masks'}.png", "mass": 100.0},
                "viewpoint": {
                    "R": (flip @ poses[number, :3, :3]).T.tolist(),
                    "T": (flip @ poses[number, :3, 3]).tolist(),
                    "focal_length": [matrix[0, 0] / half, matrix[1, 1] / half],
                    "principal_point": [
                        (width / 2 - matrix[0, 2]) / half,
                        (height / 2 - matrix[1, 2]) / half,
                    ],
                    "intrinsics_format": "ndc_isotropic",
                },
            }
        )
    sequences = [{"sequence_name": "1_2_3", "category": "apple", "viewpoint_quality_score": 1.0}]
    write_annotations(root / "apple", frames, sequences)
    lists = {
        "fewview_train": {"train": [], "val": [], "test": []},
        "fewview_dev": {"train": [["9_9_9", 0, ""]], "val": [], "test": [["1_2_3", 1, ""]]},
    }
    (root / "apple" / "set_lists").mkdir()
    for name, content in lists.items():
        path = root / "apple" / "set_lists" / f"set_lists_{name}.json"
        path.write_text(json.dumps(content))
    return seen


def write_annotations(folder: Path, frames: list[dict], sequences: list[dict]) -> None:
    for name, content in (("frame", frames), ("sequence", sequences)):
        data = gzip.compress(json.dumps(content).encode())
        (folder / f"{name}_annotations.jgz").write_bytes(data)


def nerf_entries(truth: Truth, name: str) -> list[dict]:
    found = []
    for number, pose in enumerate(truth.cameras.world_from_cam):
        matrix = np.vstack([pose, [0, 0, 0, 1]]) @ OPENGL
        path = name % (number + 1)
        found.append({"file_path": path, "transform_matrix": matrix.tolist()})
    return found[::-1]  # COLMAP's order is any


def write_transforms(folder: Path, *, depth: bool = True) -> Truth:
    """A phone's capture: pictures and millimetres beside transforms.json."""
    seen = film()
    frames = nerf_entries(seen, "images/frame_%05d.png")
    for number in range(FRAMES):
        write_png(folder / f"images/frame_{number + 1:05d}.png", seen.rgb[number])
        if depth:
            write_png(folder / f"depth/frame_{number + 1:05d}.png", millimetres(seen.depth[number]))
            frames[FRAMES - 1 - number]["depth_file_path"] = f"depth/frame_{number + 1:05d}.png"
    height, width = seen.cameras.size
    matrix = seen.cameras.intrinsics[0]
    camera = {"w": width, "h": height, "fl_x": matrix[0, 0], "fl_y": matrix[1, 1]}
    camera |= {"cx": matrix[0, 2], "cy": matrix[1, 2]}
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": frames}))
    return seen


def write_dl3dv(root: Path, name: str = "1K/" + "ab" * 32) -> Truth:
    """Pictures at a quarter of the size that the cameras are for."""
    seen, folder = film(), root / name
    for number in range(FRAMES):
        write_png(folder / f"images_4/frame_{number + 1:05d}.png", seen.rgb[number])
    height, width = seen.cameras.size
    matrix = 4 * seen.cameras.intrinsics[0]
    camera = {"camera_model": "OPENCV", "w": 4 * width, "h": 4 * height, "fl_x": matrix[0, 0]}
    camera |= {"fl_y": matrix[1, 1], "cx": matrix[0, 2], "cy": matrix[1, 2], "k1": 0.0, "k2": 0.0}
    frames = nerf_entries(seen, "images/frame_%05d.png")
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": frames}))
    return seen


def write_npz(path: Path) -> Truth:
    seen = film()
    world_from_cam = np.tile(np.eye(4), (FRAMES, 1, 1))
    world_from_cam[:, :3] = seen.cameras.world_from_cam
    np.savez(
        path,
        rgb=seen.rgb,
        depth_mm=millimetres(seen.depth),
        K=integer_centers(seen.cameras.intrinsics[0]),
        cam2world=world_from_cam,
        frame=4 * np.arange(FRAMES),
    )
    return seen


def write_sft(path: Path, *, size: tuple[int, int] = (48, 64)) -> Truth:
    seen = film(size=size)
    path.parent.mkdir(parents=True, exist_ok=True)
    confidence = 1 + np.arange(seen.depth.size, dtype=np.float32).reshape(seen.depth.shape)
    save_file(
        {
            "images": np.ascontiguousarray(seen.rgb.transpose(0, 3, 1, 2)),
            "depthmaps": seen.depth[..., None],
            "confmaps": confidence[..., None],
            "pointmaps": seen.points().astype(np.float32),
            "intrinsic": seen.cameras.intrinsics.astype(np.float32),
            "extrinsic": seen.cameras.relative_to_first().cam_from_world.astype(np.float32),
            "start_idx": np.array([0], dtype=np.int32),
        },
        path,
    )
    return seen
