"""What a person does on the page, in the words of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlparse

import numpy as np
from PIL import Image
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, Route, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

# Drawing in software stalls a page for seconds.
expect.set_options(timeout=60_000)

ENDED = ".status.done, .status.failed, .status.stopped"
# A status line that the page draws anew has lost this mark: a run can be over before this process
# looks at the page again.
MARK_OLD = "() => document.querySelector('#status .status').setAttribute('data-old', '')"
NUMBER_OF = "name => gradio_config.components.find(each => each.props.elem_id === name).id"
ANNOUNCING = re.compile("/queue/join")
LISTENING = re.compile("/queue/data")
ALL_CONTROLS = 9
"""How many values the page sends to run, or to ask whether the results are old."""


class Visitor:
    """One open page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.complaints: list[str] = []
        self.segments: list[str] = []
        self._viewer_ready = False
        self._listening: list[Request] = []
        page.on("request", self._asked)
        for over in ("requestfinished", "requestfailed"):
            page.on(over, self._closed)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._heard)
        page.on("requestfinished", self._fetched)

    def _asked(self, request: Request) -> None:
        if LISTENING.search(request.url):
            self._listening.append(request)

    def _closed(self, request: Request) -> None:
        if request in self._listening:
            self._listening.remove(request)

    def _fetched(self, request: Request) -> None:
        if urlparse(request.url).path.endswith(".ts"):  # a piece of the streamed recording
            self.segments.append(request.url)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)
        if "Rerun viewer ready" in message.text:
            self._viewer_ready = True

    def load(self, url: str) -> None:
        """Open the page and wait until the clips, the models and the viewer are there."""
        self.page.goto(url)
        self.page.wait_for_selector("#gallery img")
        self.page.wait_for_selector(".pill.ready, .pill.problem")
        for _ in range(600):
            if self._viewer_ready:
                return
            self.page.wait_for_timeout(200)
        raise AssertionError("the viewer did not get ready")

    def quiet(self) -> None:
        """Wait until the page has the answers to all that it asked the server.

        For ten seconds at most: after a very quick answer it may go on listening for nothing.
        """
        still = 0
        for _ in range(50):
            still = 0 if self._listening else still + 1
            if still == 3:  # an answer may ask the next thing
                return
            self.page.wait_for_timeout(200)

    @property
    def status(self) -> str:
        """The status line with its stages."""
        return self.page.locator("#status .status").inner_text()

    def ended(self) -> str:
        """Wait for the end of the run; "done", "failed" or "stopped"."""
        self.page.wait_for_selector(f"#status :is({ENDED}):not([data-old])")
        kinds = self.page.locator("#status .status").get_attribute("class") or ""
        return kinds.split()[-1]

    def start(self) -> None:
        """Press Run and wait until the page says that it has begun."""
        with self.starting():
            self.page.click("#run")

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Do something that starts a run, and wait until the page says that it has begun."""
        self.page.evaluate(MARK_OLD)
        yield
        self.page.wait_for_selector("#status .status:not([data-old])")

    def start_as_the_stream_ends(self, ask: Callable[[], None]) -> None:
        """Have Run pressed when the server ends the page's stream, a while before the page knows.

        The page does not open another stream for what it believes to be in the one it has.

        Args:
            ask: something that makes the page ask one thing, whose answer ends a stream.
        """
        self.page.evaluate(MARK_OLD)
        self.page.evaluate(
            """() => {
              const fetchOfPage = window.fetch;
              window.fetch = async (what, ...rest) => {
                const answer = await fetchOfPage(what, ...rest);
                if (!String(what.url ?? what).includes('/queue/data')) return answer;
                window.fetch = fetchOfPage;
                const text = new TextDecoder();
                return new Response(answer.body.pipeThrough(new TransformStream({
                  async transform(chunk, out) {
                    if (text.decode(chunk, {stream: true}).includes('"close_stream"')) {
                      window.runPressed = true;
                      document.querySelector('#run').click();
                      await new Promise(done => setTimeout(done, 1000));
                    }
                    out.enqueue(chunk);
                  },
                })), answer);
              };
            }"""
        )
        for _ in range(3):  # the first may be answered in a stream that was open before
            ask()
            with suppress(PlaywrightTimeout):
                self.page.wait_for_function("window.runPressed", timeout=20_000)
                return
        raise AssertionError("no stream has ended")

    def start_and_look_away(self, seconds: float) -> None:
        """Press Run; once the server is asked, the page does nothing else for some seconds.

        What the server says in that time, the page then hears all at once. It takes itself for a
        hidden one as long, which leaves it no pause between two messages.
        """
        self.page.evaluate(MARK_OLD)
        self.page.evaluate(
            """([controls, seconds]) => {
              const fetchOfPage = window.fetch;
              window.fetch = (what, options) => {
                const answer = fetchOfPage(what, options);
                const asks = String(what).includes('/queue/join');
                if (asks && JSON.parse(options.body).data.length === controls) {
                  window.fetch = fetchOfPage;
                  setTimeout(() => {
                    const hidden = {get: () => 'hidden', configurable: true};
                    Object.defineProperty(document, 'visibilityState', hidden);
                    const end = performance.now() + 1000 * seconds;
                    while (performance.now() < end);
                    setTimeout(() => delete document.visibilityState, 1000);
                  });
                }
                return answer;
              };
              document.querySelector('#run').click();
            }""",
            [ALL_CONTROLS, seconds],
        )

    def run(self) -> str:
        """Press Run and wait for the end."""
        self.start()
        return self.ended()

    def start_and_stop(self) -> str:
        """Press Run, and Stop as soon as it can be pressed; how the run ended.

        Inside the page, because drawing in software can hold this process off for longer than a
        run of the small model takes.
        """
        self.page.evaluate(MARK_OLD)
        self.page.evaluate(
            """() => new Promise((done, fail) => {
              const stop = document.querySelector('#stop');
              const timer = setInterval(() => {
                if (stop.disabled) return;
                clearInterval(timer);
                stop.click();
                done();
              }, 5);
              setTimeout(() => fail(Error('Stop could not be pressed')), 60_000);
              document.querySelector('#run').click();
            })"""
        )
        return self.ended()

    def looked(self) -> None:
        """Run what the controls say, unless the page shows that already."""
        clip = self.page.locator("#preview b").inner_text()
        backbone = self.page.locator("#backbone input").input_value().removesuffix(" (control)")
        cell = f"layer {self.chosen('layer'):.0f}, sigma {self.chosen('sigma'):.2f}"
        done = self.page.locator("#status .status.done p")
        if done.filter(has_text=f": {clip}, {backbone}, {cell}.").count() == 0:
            assert self.run() == "done", self.status

    def begin(self, *, layer: int = 5) -> None:
        """Choose what the page starts with, or another layer of it, whatever was chosen before."""
        self.pick_clip(0)
        self.choose_option("backbone", "toy-wan")
        self.choose("sigma", 0.3)
        self.choose("layer", layer)
        self.quiet()

    def pick_clip(self, position: int) -> None:
        """Click a thumbnail and wait until the page shows that clip."""
        thumbnail = self.page.locator("#gallery .thumbnail-item").nth(position)
        name = thumbnail.locator("img").get_attribute("alt") or ""
        if self.page.locator("#preview b").inner_text() != name:
            thumbnail.click()
        expect(self.page.locator("#preview b")).to_have_text(name)

    def choose_option(self, name: str, option: str) -> None:
        """Choose in a list ("backbone", "reference", "judge")."""
        box = self.page.locator(f"#{name} input")
        if not box.input_value().startswith(option):
            box.click()
            self.page.get_by_role("option", name=option).click()
        expect(box).to_have_value(re.compile(f"^{option}"))

    def choose(self, name: str, value: float) -> None:
        """Type a number into the box of a slider ("layer", "sigma", "start", ...)."""
        box = self.page.locator(f"#{name} input[type=number]")
        box.fill(f"{value:g}")
        box.press("Tab")
        expect(box).to_have_value(f"{value:g}")

    def slider(self, name: str) -> tuple[Locator, Locator]:
        """The slider itself and the box with its number."""
        control = self.page.locator(f"#{name}")
        return control.locator("input[type=range]"), control.locator("input[type=number]")

    def chosen(self, name: str) -> float:
        """The number that a slider shows."""
        return float(self.page.locator(f"#{name} input[type=number]").input_value())

    @contextmanager
    def answered(self, name: str) -> Iterator[None]:
        """Wait until the page has what the server answers to a list that was used inside.

        The page asks what is old only after that.
        """
        number = self.page.evaluate(NUMBER_OF, name)

        def asks(request: Request) -> bool:
            if not ANNOUNCING.search(request.url):
                return False
            sent = request.post_data_json
            return sent["trigger_id"] == number and len(sent["data"]) == ALL_CONTROLS

        with self.page.expect_event("request", asks):
            yield

    @contextmanager
    def unanswered(self) -> Iterator[None]:
        """Inside, nothing that the page tells the server gets there; at the end all of it does."""
        held: list[Route] = []
        self.page.route(ANNOUNCING, lambda route: held.append(route))
        try:
            yield
        finally:
            for route in held:
                route.continue_()
            self.page.unroute(ANNOUNCING)

    @contextmanager
    def sized(self, width: int, height: int) -> Iterator[None]:
        """Inside, the window has another size."""
        before = self.page.viewport_size
        assert before is not None
        self.page.set_viewport_size({"width": width, "height": height})
        try:
            yield
        finally:
            self.page.set_viewport_size(before)
            self.page.evaluate("scrollTo(0, 0)")

    def walk(self, most: int = 60) -> list[dict[str, Any]]:
        """Press Tab from the top of the page to its end: name and outline of each stop.

        The viewer's own text field, which is as good as invisible, has no outline to look for.
        """
        self.page.evaluate("() => scrollTo(0, 0)")
        self.page.mouse.click(2, 2)  # where the walk starts
        steps: list[dict[str, Any]] = []
        for _ in range(most):
            self.page.keyboard.press("Tab")
            found = self.page.evaluate(
                """() => {
                  const here = document.activeElement;
                  const style = getComputedStyle(here);
                  const seen = style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth);
                  return {name: here.ariaLabel || here.textContent.trim(), tag: here.tagName,
                          outline: seen, viewer: Boolean(here.closest('#viewer'))};
                }"""
            )
            if found["tag"] == "BODY":
                return steps
            steps.append(found)
        raise AssertionError(f"the page does not end: {steps[-3:]}")

    def received(self, least: int) -> None:
        """Wait until the viewer has fetched so many pieces of recordings."""
        for _ in range(300):
            if len(set(self.segments)) >= least:
                return
            self.page.wait_for_timeout(200)
        raise AssertionError(f"{len(set(self.segments))} pieces came, {least} expected")

    def upload(self, name: str, content: bytes) -> None:
        """Upload a file."""
        with self.page.expect_file_chooser() as chooser:
            self.page.click("#upload")
        chooser.value.set_files([{"name": name, "mimeType": "video/mp4", "buffer": content}])

    def tab(self, name: str) -> None:
        """Open a tab below the viewer."""
        self.page.get_by_role("tab", name=name).click()

    def tiles(self) -> Locator:
        """The frames of the correspondence pane."""
        return self.page.locator("#film .tile")

    def pictures(self) -> set[str]:
        """Addresses of the pictures in it, which are data: other pixels, another address."""
        images = self.tiles().locator("img")
        return set(images.evaluate_all("all => all.map(each => each.src)"))

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
