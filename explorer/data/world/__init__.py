"""Procedural scenes with exact geometry: rooms and open grounds seen by a moving camera."""

from explorer.data.world.render import Rendered, render
from explorer.data.world.scene import Scenes, WorldSpec, sample_scenes

__all__ = ["Rendered", "Scenes", "WorldSpec", "render", "sample_scenes"]
