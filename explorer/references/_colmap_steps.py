"""pycolmap's three steps in a temporary folder, stoppable."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pycolmap

from explorer._typing import Bool, Float, Int, UInt8
from explorer.backbones.base import stop_check
from explorer.errors import Cancelled, NoReconstruction
from explorer.references._colmap_checks import (
    check_depth,
    check_features,
    check_matches,
    why_no_model,
)
from explorer.references.colmap import FOCAL_RATIOS, MAX_ERROR, MIN_ANGLE

POLL = 0.1  # seconds between two questions whether to stop

Result = TypeVar("Result")

# pycolmap tells its progress to stderr, several lines a frame.
pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)


@dataclass(frozen=True)
class Model:
    """What COLMAP found, in its own frame and scale.

    Attributes:
        frames: (S,) registered frames, ascending.
        cam_from_world: (S, 3, 4).
        focal: of all frames, in pixels of the matched images.
        points: (N, 3) world points.
        observed: (S, N) whether a point was observed in a frame.
        reprojection_error: mean over observations, in the same pixels.
    """

    frames: Int[np.ndarray, " S"]
    cam_from_world: Float[np.ndarray, "S 3 4"]
    focal: float
    points: Float[np.ndarray, "N 3"]
    observed: Bool[np.ndarray, "S N"]
    reprojection_error: float


def run(
    frames: UInt8[np.ndarray, "T H W 3"],
    *,
    max_features: int,
    seed: int,
    should_stop: Callable[[], bool],
) -> list[Model]:
    """Features, exhaustive matching and incremental mapping of the frames of one camera.

    Mapped once from each of `FOCAL_RATIOS`, held while frames are registered and refined with
    everything else at the end. Best first. They agree where the clip tells the focal length.

    Raises:
        NoReconstruction: a step found too little; says what.
        Cancelled: `should_stop` became true; the temporary folder is gone.
    """
    with tempfile.TemporaryDirectory(prefix="emerge3d-colmap-") as name:
        folder = Path(name)
        images, database = folder / "images", folder / "database.db"
        _write(frames, images)
        _stoppable(partial(_extract, database, images, max_features), should_stop)
        check_features(database)
        _stoppable(partial(_match, database, seed), should_stop)
        check_matches(database, len(frames))
        check_depth(database)
        focals = [ratio * frames.shape[2] for ratio in FOCAL_RATIOS]
        found = []
        for mapped in _stoppable(partial(_map_all, folder, focals, seed), should_stop):
            if mapped is not None and mapped.num_points3D() > 0:
                model = _model(mapped)
                if model.focal > 0 and np.isfinite(model.cam_from_world).all():
                    found.append(model)
        if not found:
            raise NoReconstruction(why_no_model(database))
        return sorted(found, key=_worth, reverse=True)


def _write(frames: UInt8[np.ndarray, "T H W 3"], folder: Path) -> None:
    import cv2

    folder.mkdir()
    for number, frame in enumerate(frames):
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        (folder / f"{number:06d}.png").write_bytes(cv2.imencode(".png", bgr)[1].tobytes())


def _extract(
    database: Path, images: Path, max_features: int, token: pycolmap.CancellationToken
) -> None:
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_PINHOLE"
    options = pycolmap.FeatureExtractionOptions()
    options.sift.max_num_features = max_features
    options.num_threads = 1  # images are numbered as they are done, and what follows goes by number
    pycolmap.extract_features(
        database,
        images,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=options,
        device=pycolmap.Device.cpu,
        cancellation_token=token,
    )


def _match(database: Path, seed: int, token: pycolmap.CancellationToken) -> None:
    pycolmap.set_random_seed(seed)  # of this thread
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = 1  # two threads gave other matches in 2 of 72 runs
    pycolmap.match_exhaustive(
        database,
        matching_options=options,
        verification_options=verification,
        device=pycolmap.Device.cpu,
        cancellation_token=token,
    )


def _map_all(
    folder: Path, focals: list[float], seed: int, token: pycolmap.CancellationToken
) -> list[pycolmap.Reconstruction | None]:
    """The model of each focal length, as many at a time as there are processors."""
    with ThreadPoolExecutor(max_workers=min(len(focals), os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda focal: _map(folder, focal, seed, token), focals))


def _map(
    folder: Path, focal: float, seed: int, token: pycolmap.CancellationToken
) -> pycolmap.Reconstruction | None:
    """The largest model at a focal length, refined together with it at the end; None if none."""
    models = folder / f"models-{focal:.0f}"
    models.mkdir()
    database = Path(shutil.copy(folder / "database.db", models))  # the focal length goes in there
    with pycolmap.Database.open(database) as opened:
        (camera,) = opened.read_all_cameras()
        camera.params = [focal, *camera.params[1:]]
        opened.update_camera(camera)
    pycolmap.set_random_seed(seed)  # of this thread
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = seed
    options.num_threads = 1  # the order of sums, and with it the last bits, would depend on luck
    options.min_model_size = 3
    options.max_num_models = 3
    options.extract_colors = False
    # With little parallax it drifts anywhere while few frames are registered.
    options.ba_refine_focal_length = False
    options.mapper.abs_pose_refine_focal_length = False
    found = pycolmap.incremental_mapping(
        database, folder / "images", models, options=options, cancellation_token=token
    )
    best = max(
        found.values(),
        key=lambda one: (one.num_reg_images(), one.compute_num_observations()),
        default=None,
    )
    if best is not None and not token.is_cancelled:
        _refine(best)
    return best


def _refine(model: pycolmap.Reconstruction) -> None:
    """Bundle adjustment of everything, focal length included."""
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point = False
    options.print_summary = False
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for number in model.reg_image_ids():
        config.add_image(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    # not pycolmap.bundle_adjustment, which turns all of COLMAP's logging on again
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    # what was an outlier at the first focal length bends the second one
    pycolmap.ObservationManager(model).filter_all_points3D(MAX_ERROR, MIN_ANGLE)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()


def _worth(model: Model) -> tuple[int, int]:
    return len(model.frames), int(model.observed.sum())


def _stoppable(
    step: Callable[[pycolmap.CancellationToken], Result], should_stop: Callable[[], bool]
) -> Result:
    """What a step gives; it runs on a thread of its own and is told to end when asked to stop."""
    stop_check(should_stop)
    token = pycolmap.CancellationToken()
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(step, token)
        try:
            while not future.done() and not should_stop():
                wait([future], timeout=POLL)
        finally:
            if not future.done():  # asked to stop, or interrupted from the keyboard
                token.cancel()
    # leaving the block has waited for the thread: no files go away under it
    if token.is_cancelled:
        raise Cancelled("stopped while COLMAP was at work")
    return future.result()


def _model(found: pycolmap.Reconstruction) -> Model:
    images = [found.images[number] for number in found.reg_image_ids()]
    images.sort(key=lambda image: image.name)
    column = {number: position for position, number in enumerate(sorted(found.points3D))}
    observed = np.zeros((len(images), len(column)), dtype=bool)
    for row, image in enumerate(images):
        seen = [column[each.point3D_id] for each in image.get_observation_points2D()]
        observed[row, seen] = True
    pose = np.stack([image.cam_from_world().matrix() for image in images])
    return Model(
        frames=np.array([int(Path(image.name).stem) for image in images], dtype=np.int64),
        cam_from_world=np.asarray(pose, dtype=np.float64),
        focal=float(next(iter(found.cameras.values())).focal_length),
        points=np.array([found.points3D[number].xyz for number in column], dtype=np.float64),
        observed=observed,
        reprojection_error=float(found.compute_mean_reprojection_error()),
    )
