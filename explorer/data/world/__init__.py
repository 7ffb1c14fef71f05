"""Procedural scenes with exact geometry: rooms and open grounds seen by a moving camera."""

from explorer.data.world.render import Rendered, render
from explorer.data.world.scene import Scenes, sample_scenes
from explorer.data.world.spec import WORLD_VERSION, WorldSpec

__all__ = ["WORLD_VERSION", "Rendered", "Scenes", "WorldSpec", "render", "sample_scenes"]
