"""What families of scenes may contain, and which parts of the world training never sees."""

from __future__ import annotations

from dataclasses import dataclass, field

from explorer.data.world_version import WORLD_VERSION as WORLD_VERSION

MAX_OBJECTS = 16
FLOOR, WALL_LEFT, WALL_RIGHT, WALL_BACK, WALL_FRONT, CEILING = 1, 2, 3, 4, 5, 6
FIRST_OBJECT = 7  # surface ids: 0 is the sky, 1-6 the room's planes, then the objects
SURFACES = FIRST_OBJECT + MAX_OBJECTS

BOX, SPHERE, CYLINDER, CONE = 1, 2, 3, 4  # primitives that rays meet

# Shapes that scenes draw, each a primitive in some proportion and position.
SHAPES = {
    "box": BOX,
    "ball": SPHERE,
    "cylinder": CYLINDER,
    "pipe": CYLINDER,  # a cylinder that lies
    "cone": CONE,
    "ellipsoid": SPHERE,
}

TEXTURES = (
    "plaster", "checker", "stripes", "bricks", "dots", "tiles", "wood", "marble", "patchwork",
    "zigzag", "diamonds", "planks", "glyphs", "plaid", "targets", "terrazzo", "crosses", "waves",
    "triangles", "speckle", "ladder", "hexagons", "truchet", "contours", "weave", "windows",
)  # fmt: skip
HELD_OUT_TEXTURES = ("hexagons", "truchet", "contours", "weave", "windows")
HELD_OUT_SHAPES = ("cone", "ellipsoid")
TRAIN_TEXTURES = tuple(name for name in TEXTURES if name not in HELD_OUT_TEXTURES)


@dataclass(frozen=True)
class WorldSpec:
    """What a family of scenes may contain; the default is what models train on.

    Attributes:
        frames: T, frames of a clip.
        objects: fewest and most objects of an ordinary scene.
        crowd: fewest and most objects of a cluttered scene, which has stacks.
        clutter: fraction of cluttered scenes.
        fov_degrees: horizontal field of view, lowest and highest.
        rooms: fraction of rooms; the others are open grounds under a sky.
        shake: fraction of cameras that are held in a hand.
        shapes: relative frequency of each of `SHAPES`.
        textures: which of `TEXTURES` surfaces have.
        moving: fraction of objects that move or deform; above 0 at least one does.
    """

    frames: int = 17
    objects: tuple[int, int] = (3, 10)
    crowd: tuple[int, int] = (9, MAX_OBJECTS)
    clutter: float = 0.25
    fov_degrees: tuple[float, float] = (35.0, 75.0)
    rooms: float = 0.65
    shake: float = 0.4
    shapes: dict[str, float] = field(
        default_factory=lambda: {"box": 0.45, "ball": 0.23, "cylinder": 0.22, "pipe": 0.1}
    )
    textures: tuple[str, ...] = TRAIN_TEXTURES
    moving: float = 0.0


TRAIN = WorldSpec()
SHIFTED = WorldSpec(shapes={"cone": 0.6, "ellipsoid": 0.4}, textures=HELD_OUT_TEXTURES)
DYNAMIC = WorldSpec(moving=0.6)
