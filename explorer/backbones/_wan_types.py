"""Names for diffusers' models in signatures.

diffusers' lazy modules look to a type checker like their empty stand-ins for missing dependencies,
without attributes, so these names stand for any object.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Vae: TypeAlias = Any  # diffusers.AutoencoderKLWan
Transformer: TypeAlias = Any  # diffusers.WanTransformer3DModel
