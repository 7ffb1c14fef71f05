"""What a person does on the page, in the words of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, Route, expect
from viewing import Viewing

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


class Visitor(Viewing):
    """One open page."""

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.problems: list[str] = []
        self.complaints: list[str] = []
        self._listening: list[Request] = []
        page.on("request", self._asked)
        for over in ("requestfinished", "requestfailed"):
            page.on(over, self._closed)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._heard)

    def _asked(self, request: Request) -> None:
        if LISTENING.search(request.url):
            self._listening.append(request)

    def _closed(self, request: Request) -> None:
        if request in self._listening:
            self._listening.remove(request)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def load(self, url: str) -> None:
        """Open the page and wait until the clips, the models and the viewer are there."""
        self.page.goto(url)
        self.page.wait_for_selector("#gallery img")
        self.page.wait_for_selector(".pill.ready, .pill.problem")
        self.viewer_ready()

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

    def run(self) -> str:
        """Press Run and wait for the end."""
        self.start()
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
