"""One server and one real Chromium for all browser tests; each page is a visitor of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from app_server import Server
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright
from visitor import Visitor

FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-gl=angle --use-angle=swiftshader "
    "--enable-unsafe-swiftshader --ignore-gpu-blocklist"
).split()
# `make test` looks for the same names, after $CHROMIUM too.
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The viewer's wasm logs some 64,000 debug lines; each would cross into the test process.
MUTE = "console.debug = () => {}; console.trace = () => {};"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that all pages are loaded from; its runs can be held halfway."""
    started = Server(tmp_path_factory.mktemp("server") / "cache", gated=True)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium or Chrome of this machine, drawing in software."""
    names = [os.environ.get("CHROMIUM", ""), *CHROMIUMS]
    executable = next(filter(None, map(shutil.which, filter(None, names))), None)
    if executable is None:
        pytest.fail("no Chromium found: install it, or set CHROMIUM to its path or a Chrome's")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def requests() -> list[str]:
    """Addresses of all finished requests of all pages, in order."""
    return []


@pytest.fixture(scope="session")
def visit(browser: Browser, server: Server, requests: list[str]) -> Iterator[Callable[[], Visitor]]:
    """Opens the page as one more person."""
    contexts: list[BrowserContext] = []

    def open_page() -> Visitor:
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        contexts.append(context)
        page: Page = context.new_page()
        page.set_default_timeout(90_000)
        page.add_init_script(MUTE)

        def finished(request: Request) -> None:
            requests.append(request.url)

        page.on("requestfinished", finished)
        visitor = Visitor(page)
        visitor.load(server.url)
        return visitor

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def ada(visit: Callable[[], Visitor]) -> Visitor:
    """The first person."""
    return visit()


@pytest.fixture(scope="session")
def bob(visit: Callable[[], Visitor]) -> Visitor:
    """The second person, at the same time."""
    return visit()
