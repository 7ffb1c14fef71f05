"""Where rays meet the unit primitives, and which way their surfaces face.

A primitive spans [-1, 1] along each axis of its own frame: the cube, the sphere, the upright
cylinder, and the upright cone with its tip at y = -1 (up). An affine map puts it into the world;
because such maps keep the ray parameter, a hit's parameter is the same in both frames.

Curved primitives first move the ray's origin to its point nearest the centre: in single precision
that keeps silhouettes sharp for cameras far away (Haines et al., Ray Tracing Gems, chapter 7).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explorer.data.world.spec import BOX, CONE, CYLINDER, SPHERE

FAR = 1e6  # the ray parameter of rays that hit nothing
NEAR = 1e-4  # nothing nearer is hit
_TINY = 1e-12  # keeps divisions finite; no direction is as short

Triple = tuple[Tensor, Tensor, Tensor]


def _entry(enter: Tensor, leave: Tensor) -> Tensor:
    return torch.where((enter < leave) & (enter > NEAR), enter, FAR)


def _slab(q: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Parameters at which a ray enters and leaves [-1, 1] along one axis."""
    inverse = 1.0 / (e + _TINY)
    first, second = (-1.0 - q) * inverse, (1.0 - q) * inverse
    return torch.minimum(first, second), torch.maximum(first, second)


def _centered(q: Triple, e: Triple) -> tuple[Tensor, Triple]:
    """(parameter of the ray's point nearest the centre, that point)."""
    along = q[0] * e[0] + q[1] * e[1] + q[2] * e[2]
    start = -along / (e[0] * e[0] + e[1] * e[1] + e[2] * e[2] + _TINY)
    return start, (q[0] + start * e[0], q[1] + start * e[1], q[2] + start * e[2])


def box(q: Triple, e: Triple) -> Tensor:
    """First hit of rays q + t e with the cube, `FAR` without one."""
    enter_x, leave_x = _slab(q[0], e[0])
    enter_y, leave_y = _slab(q[1], e[1])
    enter_z, leave_z = _slab(q[2], e[2])
    enter = torch.maximum(torch.maximum(enter_x, enter_y), enter_z)
    return _entry(enter, torch.minimum(torch.minimum(leave_x, leave_y), leave_z))


def sphere(q: Triple, e: Triple) -> Tensor:
    """First hit of rays q + t e with the unit sphere, `FAR` without one."""
    length = e[0] * e[0] + e[1] * e[1] + e[2] * e[2] + _TINY
    start, (x, y, z) = _centered(q, e)
    room = 1.0 - (x * x + y * y + z * z)
    enter = start - torch.sqrt(torch.clamp(room, min=0.0) / length)
    return torch.where((room > 0) & (enter > NEAR), enter, FAR)


def cylinder(q: Triple, e: Triple) -> Tensor:
    """First hit of rays q + t e with the capped cylinder about y, `FAR` without one."""
    length = e[0] * e[0] + e[2] * e[2] + _TINY
    middle = -(q[0] * e[0] + q[2] * e[2]) / length
    x, z = q[0] + middle * e[0], q[2] + middle * e[2]
    room = 1.0 - (x * x + z * z)
    chord = torch.sqrt(torch.clamp(room, min=0.0) / length)
    enter, leave = _slab(q[1], e[1])
    t = _entry(torch.maximum(enter, middle - chord), torch.minimum(leave, middle + chord))
    return torch.where(room > 0, t, FAR)


def cone(q: Triple, e: Triple) -> Tensor:
    """First hit of rays q + t e with the cone on its base y = 1, `FAR` without one."""
    start, (x, y, z) = _centered(q, e)
    below = 0.5 * (y + 1.0)  # the radius at this height
    slope = 0.5 * e[1]
    a = e[0] * e[0] + e[2] * e[2] - slope * slope
    b = x * e[0] + z * e[2] - below * slope
    c = x * x + z * z - below * below
    root = b * b - a * c
    # Both roots without cancellation, whichever sign b has.
    far = -(b + torch.where(b < 0, -1.0, 1.0) * torch.sqrt(torch.clamp(root, min=0.0)))
    t = torch.full_like(root, FAR)
    for s in (far / _nonzero(a), c / _nonzero(far)):
        radius = below + s * slope
        valid = (root > 0) & (radius > 0) & (radius < 1) & (start + s > NEAR)
        t = torch.where(valid & (start + s < t), start + s, t)
    s = (1.0 - y) / (e[1] + _TINY)
    base_x, base_z = x + s * e[0], z + s * e[2]
    valid = (base_x * base_x + base_z * base_z < 1) & (start + s > NEAR)
    return torch.where(valid & (start + s < t), start + s, t)


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(torch.abs(x) < _TINY, _TINY, x)


# Names tell primitives apart in what is compiled: compilers may take a number for a symbol.
KINDS = {"box": BOX, "sphere": SPHERE, "cylinder": CYLINDER, "cone": CONE}
FIRST_HIT: dict[str, Callable[[Triple, Triple], Tensor]] = {
    "box": box,
    "sphere": sphere,
    "cylinder": cylinder,
    "cone": cone,
}


def unit_normal(kind: Tensor, q: Triple, primitives: tuple[str, ...]) -> Triple:
    """Outward normals (of any length) at points on the unit primitives.

    Args:
        kind: number of each point's primitive, as a float.
        q: the points, three tensors of one shape.
        primitives: names of those that occur; others are not computed.
    """
    x, y, z = q
    nx, ny, nz = x, y, z  # of the sphere
    zero = torch.zeros_like(x)
    if "box" in primitives:
        # The hit face is the axis on which the point lies furthest out.
        ax, ay, az = torch.abs(x), torch.abs(y), torch.abs(z)
        face_x = (ax >= ay) & (ax >= az)
        face_y = ~face_x & (ay >= az)
        is_box = kind == BOX
        nx = torch.where(is_box, torch.where(face_x, torch.sign(x), zero), nx)
        ny = torch.where(is_box, torch.where(face_y, torch.sign(y), zero), ny)
        nz = torch.where(is_box, torch.where(face_x | face_y, zero, torch.sign(z)), nz)
    if "cylinder" in primitives or "cone" in primitives:
        radius = torch.sqrt(x * x + z * z)
        is_cylinder, is_cone = kind == CYLINDER, kind == CONE
        cap = is_cylinder & (torch.abs(y) > radius)
        cap = cap | (is_cone & (1.0 - y < torch.abs(radius - 0.5 * (y + 1.0))))
        side_y = torch.where(is_cone, -0.5 * radius, zero)
        round_side = is_cylinder | is_cone
        nx, nz = torch.where(cap, zero, nx), torch.where(cap, zero, nz)
        ny = torch.where(round_side, torch.where(cap, torch.sign(y), side_y), ny)
    return nx, ny, nz
