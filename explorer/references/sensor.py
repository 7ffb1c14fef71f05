"""What a dataset itself knows about the geometry of its clips: a depth camera, or what it ships."""

from __future__ import annotations

from dataclasses import replace

from explorer import plugins
from explorer.clip import Clip
from explorer.reconstruction import Reconstruction
from explorer.references import Context, register


def _knows(clip: Clip) -> bool:
    return clip.scene is not None


@register(
    "sensor",
    "The dataset's own geometry: depth camera, stereo, ...",
    knows=_knows,
    licence="that of the dataset",
)
def reconstruct(clip: Clip, context: Context | None = None) -> Reconstruction | None:
    """Geometry of a clip that was taken from a dataset's scene; None for any other video.

    `provenance["note"]` says where it is from, and how long a unit is where lengths are metric.

    Raises:
        NoReconstruction: the scene has no depth, or none in the clip's first frame.
        DatasetError: the dataset's files are damaged.
        Cancelled: `context.should_stop` became true.
    """
    if clip.scene is None:
        return None
    context = context or Context()
    found = clip.scene.reconstruction(clip, should_stop=context.should_stop)
    unit, name = found.provenance["unit"], found.provenance["unit_name"]
    length = "no metric scale" if name is None else f"the unit length is {unit:.4g} {name}"
    said = {
        "note": f"reference: {found.source}; {length}",
        **plugins.provenance("dataset", clip.scene.dataset),
    }
    return replace(found, provenance={**found.provenance, **said})
