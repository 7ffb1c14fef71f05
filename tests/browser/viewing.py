"""What a person sees in the viewer, and does there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlparse

import numpy as np
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page, Request, expect


class Viewing:
    """The viewer of one open page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.segments: list[str] = []
        self._ready = False
        page.on("requestfinished", self._fetched)
        page.on("console", self._said)

    def _fetched(self, request: Request) -> None:
        if urlparse(request.url).path.endswith(".ts"):  # a piece of the streamed recording
            self.segments.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        if "Rerun viewer ready" in message.text:
            self._ready = True

    def viewer_ready(self) -> None:
        """Wait until it can show something."""
        for _ in range(600):
            if self._ready:
                return
            self.page.wait_for_timeout(200)
        raise AssertionError("the viewer did not get ready")

    def received(self, least: int) -> None:
        """Wait until the viewer has fetched so many pieces of recordings."""
        for _ in range(300):
            if len(set(self.segments)) >= least:
                return
            self.page.wait_for_timeout(200)
        raise AssertionError(f"{len(set(self.segments))} pieces came, {least} expected")

    @contextmanager
    def without_intro(self) -> Iterator[None]:
        """Hide the introduction, which covers the viewer before the first run."""
        style = self.page.add_style_tag(content="#intro { visibility: hidden !important; }")
        try:
            yield
        finally:
            style.evaluate("style => style.remove()")

    def pick_in_viewer(self, x: float, y: float, *, said: str) -> None:
        """Click a point of a picture in the viewer until the correspondence pane says something.

        The point is in fractions of the viewer's size. The viewer learns where the pointer is, and
        shows it, when it draws; and a press that a slow drawing makes longer than 0.8 s is no click
        to it, for anybody.
        """
        canvas = self.page.locator("#viewer canvas")
        box = canvas.bounding_box()
        assert box is not None
        where = box["x"] + x * box["width"], box["y"] + y * box["height"]
        headline = self.page.locator("#film .headline")
        for _ in range(5):
            self.page.mouse.move(*where)
            expect(canvas).to_have_css("cursor", "crosshair")
            self.page.mouse.click(*where)
            with suppress(AssertionError):
                expect(headline).to_contain_text(said, timeout=12_000)
                return
        raise AssertionError(f"{said!r} is not said: {headline.all_inner_texts()}")

    def pixels(self, left: float, top: float, right: float, bottom: float) -> np.ndarray:
        """(H, W, 3) what a part of the viewer shows, in fractions of its size."""
        box = self.page.locator("#viewer canvas").bounding_box()
        assert box is not None
        clip: Any = {
            "x": box["x"] + left * box["width"],
            "y": box["y"] + top * box["height"],
            "width": (right - left) * box["width"],
            "height": (bottom - top) * box["height"],
        }
        shot = self.page.screenshot(clip=clip)
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def colourful(self, left: float, top: float, right: float, bottom: float) -> int:
        """How many pixels of a part of the viewer have a strong colour.

        Points and cameras have; the background, titles, buttons and axes' labels are pale or grey.
        """
        shown = self.pixels(left, top, right, bottom).astype(int)
        return int((shown.max(axis=2) - shown.min(axis=2) > 90).sum())

    def empty(self, left: float, top: float, right: float, bottom: float) -> None:
        """Wait until a part of the viewer has next to no pixel of a strong colour."""
        count = 0
        for _ in range(60):
            count = self.colourful(left, top, right, bottom)
            if count < 100:
                return
            self.page.wait_for_timeout(500)
        raise AssertionError(f"{count} pixels have a strong colour before anything was run")

    def drawn(self, left: float, top: float, right: float, bottom: float, *, least: int) -> int:
        """Wait until a part of the viewer has `least` pixels of a strong colour."""
        count = 0
        for _ in range(60):
            count = self.colourful(left, top, right, bottom)
            if count >= least:
                return count
            self.page.wait_for_timeout(500)
        raise AssertionError(f"only {count} pixels have a strong colour, {least} expected")
