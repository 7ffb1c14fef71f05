"""Colours, fonts, spacing, and what the page does by itself.

System fonts only: the page asks nothing from the network.
"""

from __future__ import annotations

from pathlib import Path

from app._gradio import gr

_STATIC = Path(__file__).parent / "static"
CSS = (_STATIC / "page.css").read_text(encoding="utf-8")
HEAD = "".join(
    f"<script>{(_STATIC / name).read_text(encoding='utf-8')}</script>"
    for name in ("page.js", "stream.js")
)
"""What runs in the page before anything of it is drawn."""


def theme() -> gr.themes.Base:
    """A quiet built-in theme with system fonts."""
    return gr.themes.Base(
        primary_hue="teal",
        secondary_hue="slate",
        neutral_hue="slate",
        radius_size="sm",
        spacing_size="sm",
        text_size="sm",
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    )
