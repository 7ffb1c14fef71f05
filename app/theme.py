"""Colours, fonts and spacing. System fonts only: the page asks nothing from the network."""

from __future__ import annotations

from pathlib import Path

from app._gradio import gr

CSS = (Path(__file__).parent / "static" / "page.css").read_text(encoding="utf-8")


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
