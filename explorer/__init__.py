"""Emerge3D: where 3D emerges inside video foundation models.

Four nouns carry everything: `Clip`, `Features`, `Reconstruction` and `Report`.
Importing this package loads neither torch nor diffusers.
"""

__version__ = "0.1.0"
