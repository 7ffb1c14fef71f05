"""Depth Anything 3 (Lin et al. 2025, arXiv 2511.10647): a network's estimate of depth and cameras.

Through its own package, which is not part of this one, and only the two networks that estimate
cameras too and whose weights are under Apache-2.0. The larger ones are under CC BY-NC 4.0, and the
two other Apache-2.0 networks see frames one by one and know no cameras.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from explorer.backbones._options import Source
from explorer.backbones._weights import fingerprint
from explorer.camera import Cameras, unproject
from explorer.clip import Clip
from explorer.errors import ReferenceError3D
from explorer.reconstruction import Reconstruction
from explorer.references import Context, _published, register
from explorer.references.vggt import REMARK, input_size

PACKAGE, DISTRIBUTION, RELEASE = "depth_anything_3", "depth-anything-3", "0.1.1"
INSTALL = (
    f"pip install 'emerge3d[{DISTRIBUTION}]', then pip install --no-deps {DISTRIBUTION}=={RELEASE}"
)
"""The package itself asks for another numpy than the viewer and works with that one."""
PATCH = 14
LONGEST = 504
"""Pixels of the longer side that the package works at unless it is told otherwise."""
FILES = ("model.safetensors",)


@dataclass(frozen=True)
class Model:
    """One published network.

    Attributes:
        id: of the reference, and the package's own name of the network.
        repo: of its weights on the Hugging Face hub.
        licence: of its weights.
        parameters: counted in the package's network.
    """

    id: str
    repo: str
    licence: str
    parameters: int

    @property
    def source(self) -> Source:
        """Where its weights are, and how large in float32."""
        return Source(self.repo, FILES, 4 * self.parameters)


MODELS = (
    Model("da3-small", "depth-anything/DA3-SMALL", "Apache-2.0", 34_299_463),
    Model("da3-base", "depth-anything/DA3-BASE", "Apache-2.0", 135_366_599),
)


def _missing(model: Model) -> str | None:
    if importlib.util.find_spec(PACKAGE) is None:
        return f"the reference {model.id} needs the package {DISTRIBUTION}: {INSTALL}"
    try:
        _weights(model)
    except ReferenceError3D as error:
        return str(error)
    return None


def _weights(model: Model) -> Path:
    """The file of weights.

    Raises:
        ReferenceError3D: it is not here; says how to get it.
    """
    path = _published.find(model.id, model.source) / FILES[0]
    if not path.is_file():
        raise ReferenceError3D(f"{path.parent} holds no {FILES[0]}: put the weights there")
    return path


def reconstruct(model: Model, clip: Clip, context: Context) -> Reconstruction:
    """All frames of a clip in one pass; points are unprojected depth, confidence is the network's.

    Pictures are stretched to `LONGEST` pixels on the longer side and the nearest multiple of
    `PATCH` on the other, as the package itself does. Normalised.

    Raises:
        ReferenceError3D: package or weights are missing, broken or of another release, or too
            little memory.
        Cancelled: `context.should_stop` became true; nothing is stored.
    """
    path = _weights(model)
    digest = _digest(path, path.stat().st_mtime_ns, path.stat().st_size)
    recipe = {
        "name": model.id,
        "weights": digest,
        "package": _release(),
        **context.machine(),
    }
    return context.cached(
        clip, recipe, functools.partial(_estimate, model, clip, context, path, digest)
    )


def _estimate(
    model: Model, clip: Clip, context: Context, path: Path, digest: str
) -> Reconstruction:
    from explorer.references import _da3_run

    fine = context.closer(clip, 2 * LONGEST, enough=LONGEST)
    size = input_size(fine.size, PATCH, side=LONGEST)
    found = _da3_run.run(
        fine.frames,
        path,
        preset=model.id,
        digest=digest,
        size=size,
        device=context.device,
        should_stop=context.should_stop,
    )
    cameras = Cameras(found.cam_from_world, found.intrinsics, size)
    points = unproject(found.depth.astype(np.float64), cameras).astype(np.float32)
    if not all(np.isfinite(each).all() for each in (points, found.confidence)):
        raise ReferenceError3D(
            f"{model.id} gave numbers that are not finite: its weights {path} are damaged"
        )
    return Reconstruction(
        frames=np.arange(len(clip)),
        depth=found.depth,
        points=points,
        confidence=found.confidence,
        cameras=cameras,
        source=model.id,
        provenance={
            "weights": digest,
            "licence": model.licence,
            "points_from": "depth",
            "input_size": list(size),
            "device": context.device,
            "estimate": True,
        },
    ).normalized()


def _release() -> str | None:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # from a folder on the path
        return None


@functools.lru_cache(maxsize=16)
def _digest(path: Path, changed: int, size: int) -> str:
    return fingerprint([path], path.parent)


for _model in MODELS:
    register(
        _model.id,
        f"Depth Anything 3 {_model.id.removeprefix('da3-')}: depth and cameras",
        missing=functools.partial(_missing, _model),
        remark=REMARK,
        licence=_model.licence,
        source=_model.source,
    )(functools.partial(reconstruct, _model))
