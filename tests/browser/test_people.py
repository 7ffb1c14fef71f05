"""Two people at once, their own videos, links, and whom the pages ask; after the tests of one."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlparse

import pytest
from app_server import Server
from playwright.sync_api import expect
from pressing import start_and_stop
from visitor import Visitor
from watched import LEAVES, WATCHED

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

LINK = "/?clip=ground-pan-01&backbone=rgb&sigma=0.40"


def test_two_people_run_at_once_and_one_stop_leaves_the_other_alone(
    ada: Visitor, bob: Visitor, server: Server
) -> None:
    assert bob.status == "Pick a clip, then Run."
    assert bob.tiles().count() == 0
    ada.begin(layer=9)  # a cell without a probe, so that her run is not held
    ada.choose("sigma", 0.63)
    bob.pick_clip(3)
    hers = ada.page.locator("#preview b").inner_text()
    assert bob.page.locator("#preview b").inner_text() != hers
    with server.holding(0):
        ada.start()
        assert start_and_stop(bob) == "stopped"
        assert ada.ended() == "done", ada.status
    assert "Stopped." in bob.status
    pictures = [each.pictures() for each in (ada, bob)]
    assert pictures[0]
    assert not pictures[0] & pictures[1], "he sees frames of her clip"
    for each, logs in ((ada, 1), (bob, 0)):
        each.tab("Log")
        expect(each.page.locator("#log")).to_have_count(logs)
        each.tab("Correspondence")


def test_a_text_file_renamed_mp4_gives_a_readable_error_and_the_page_goes_on(bob: Visitor) -> None:
    bob.upload("holiday.mp4", b"this is not a video\n" * 50)
    failed = bob.page.locator("#status .status.failed")
    expect(failed).to_contain_text("holiday.mp4 is not a video")
    seen = failed.locator("p").evaluate(
        """line => {
          const box = line.getBoundingClientRect();
          return [0.1, 0.5, 0.9].every(at =>
            line.contains(document.elementFromPoint(box.x + at * box.width, box.y + 10)));
        }"""
    )
    assert seen, "something covers the error"
    assert "Traceback" not in bob.page.content()
    bob.choose("layer", 1)
    assert bob.run() == "done", bob.status


def test_a_second_judge_marks_what_it_disputes_and_the_metrics_say_so(bob: Visitor) -> None:
    bob.begin()
    bob.pick_clip(1)
    bob.page.get_by_role("button", name="Second judge").click()
    bob.choose_option("judge", "colmap")
    assert bob.run() == "done", bob.status
    expect(bob.page.locator("#status li").filter(has_text="judge")).to_have_count(1)
    expect(bob.page.locator("#legend")).to_contain_text("disputed by the second judge")
    bob.tab("Metrics")
    panel = bob.page.locator("#metrics")
    expect(panel).to_contain_text("colmap disputes")
    assert float(panel.locator("tr.rest td").first.inner_text()) > 0
    expect(panel.locator("tr.judges th")).to_contain_text("exact against colmap")
    expect(panel.locator("table.frames thead")).to_contain_text("reference with itself")
    bob.choose_option("judge", "none")
    bob.page.get_by_role("button", name="Second judge").click()


def test_an_uploaded_video_runs_to_the_end_without_a_reference(bob: Visitor, media: Path) -> None:
    video = media / "Colosseum.mp4"
    if not video.is_file():
        pytest.skip(f"{video} is not there")
    bob.upload("Colosseum.mp4", video.read_bytes())
    expect(bob.page.locator("#status")).to_contain_text("Colosseum.mp4 is here")
    # of COLMAP where it is installed, else of the shipped expert
    expect(bob.page.locator("#reference input")).to_have_value(re.compile("^estimate"))
    bob.choose_option("reference", "none")  # that camera only turns, and finding out takes a while
    expect(bob.page.locator("#preview")).to_contain_text("Colosseum.mp4")
    assert bob.run() == "done", bob.status
    assert "none" in bob.status
    bob.tab("Metrics")
    expect(bob.page.locator("#metrics .note").first).to_contain_text("no reference")
    look = bob.page.locator("#metrics tr.this")
    assert look.locator("td").all_inner_texts() == ["–"] * look.locator("td").count()
    bob.tab("Correspondence")
    bob.tiles().first.locator("img").click()
    expect(bob.page.locator("#film .headline")).to_contain_text("No reference")


def test_the_page_says_that_models_warm_up_until_the_server_has_them(
    bob: Visitor, server: Server
) -> None:
    bob.page.route("**/ready", lambda route: route.fulfill(json={"ready": False}))
    bob.page.goto(server.url + LINK)
    expect(bob.page.locator(".pill")).to_have_text("warming up")
    bob.page.unroute("**/ready")
    expect(bob.page.locator(".pill.ready")).to_have_text("ready · CPU")


def test_a_link_opens_its_cell_of_its_clip(bob: Visitor, server: Server) -> None:
    if bob.page.url != server.url + LINK:
        bob.page.goto(server.url + LINK)
    expect(bob.page.locator("#preview b")).to_have_text("ground pan 01")
    expect(bob.page.locator("#backbone input")).to_have_value("rgb (control)")
    layer, sigma = bob.slider("layer"), bob.slider("sigma")
    expect(layer[1]).to_have_value("0")
    expect(sigma[1]).to_have_value("0.4")
    for slider in (layer[0], sigma[0]):  # a single layer, and no noise
        expect(slider).to_be_disabled()
    expect(layer[0]).to_have_attribute("max", "1")
    expect(bob.page.locator("#cell")).to_contain_text("sigma is ignored")


def test_neither_pages_nor_server_asked_anything_outside_this_machine(
    ada: Visitor, bob: Visitor, server: Server, requests: list[str]
) -> None:
    assert WATCHED in server.log()
    assert [line for line in server.log().splitlines() if LEAVES in line] == []
    asked = {urlparse(url).hostname for url in requests if not url.startswith(("data:", "blob:"))}
    assert asked == {"127.0.0.1"}
    for each in (ada, bob):
        assert not each.problems
        assert not [text for text in each.complaints if "Content Security Policy" in text]
