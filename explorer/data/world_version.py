"""Which world the seeds mean: readable without torch, which the world itself needs."""

from __future__ import annotations

WORLD_VERSION = 2
"""1 had boxes and spheres, 11 textures, steady cameras and nothing that moves."""
