"""Shape annotations that stay inert where jaxtyping is absent.

Training runs on bare GPU machines that have torch, numpy, diffusers, safetensors and einops only.
Everywhere else the annotations are jaxtyping's, and the test suite checks them at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, UInt8
    except ImportError:

        class _Inert:
            def __class_getitem__(cls, item: Any) -> Any:
                return item[0] if isinstance(item, tuple) else item

        Bool = Float = Int = UInt8 = _Inert

__all__ = ["Bool", "Float", "Int", "UInt8"]
