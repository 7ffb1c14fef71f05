"""The page in a real browser. The tests share pages and run in this order."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from app_server import Server
from playwright.sync_api import expect
from pressing import start_and_look_away, start_and_stop, start_as_the_stream_ends
from visitor import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

PREDICTION, REFERENCE = (0.01, 0.07, 0.49, 0.52), (0.51, 0.07, 0.99, 0.52)
INPUT = (0.125, 0.75)


def test_a_second_start_serves_the_page_within_four_seconds(tmp_path: Path) -> None:
    """The best of three, less the time for which the process waited for a core (Linux alone).

    Other work on the machine then costs little; on an idle one these are the seconds of a clock.
    """
    seconds = []
    while len(seconds) < 3 and min(seconds, default=4.0) >= 4.0:
        started = Server(tmp_path / "cache")  # the first one also compiles what it imports
        assert list(started.temporary.iterdir()), "uploads have a folder of this server"
        started.stop()
        assert not list(started.temporary.iterdir()), "which goes with it"
        seconds.append(started.seconds_to_serve)
        said = [line.split(" http")[0] for line in started.printed]
        assert said == ["Emerge3D is at"], "it prints its address and nothing else"
    assert min(seconds) < 4.0


def test_the_page_loads_with_a_clip_chosen_and_says_what_to_do(ada: Visitor) -> None:
    assert ada.page.title() == "Emerge3D"
    assert ada.status == "Pick a clip, then Run."
    assert ada.page.locator("#gallery .thumbnail-item").count() >= 4
    assert ada.page.locator("#preview img").count() == 2
    assert "model timestep" in ada.page.locator("#cell").inner_text()


def test_the_page_can_be_used_by_keyboard_and_shows_where_it_is(ada: Visitor) -> None:
    ada.begin(layer=7)
    with ada.answered("backbone"):  # a list says what is chosen whenever it is left
        steps = ada.walk()
    names = [step["name"] for step in steps]
    for name in ("room orbit 01", "Backbone", "range slider for Layer", "Run", "Log"):
        assert name in names, f"{name} is not reached by Tab"
    viewer = [position for position, step in enumerate(steps) if step["viewer"]]
    assert viewer, "the viewer takes the keyboard"
    assert viewer[-1] < names.index("Log"), "and lets go of it"
    assert not [step["name"] for step in steps if step["outline"] < 2], "focus cannot be seen"
    slider, number = ada.slider("layer")
    for key, layer in (("ArrowRight", "8"), ("ArrowLeft", "7")):
        slider.press(key)
        expect(number).to_have_value(layer)
        expect(slider).to_have_value(layer)


def test_another_backbone_brings_its_cell_at_once_and_no_late_answer_takes_the_slider_back(
    ada: Visitor,
) -> None:
    ada.begin(layer=7)
    slider, number = ada.slider("layer")
    with ada.answered("backbone"), ada.unanswered():
        ada.choose_option("backbone", "random")
        expect(number).to_have_value("5")
        slider.press("ArrowRight")
        expect(number).to_have_value("6")
    expect(number).to_have_value("6")
    expect(slider).to_have_value("6")
    ada.choose_option("backbone", "rgb")  # a single layer, and no noise
    expect(number).to_have_value("0")
    expect(slider).to_be_disabled()
    expect(ada.slider("sigma")[0]).to_be_disabled()
    ada.choose_option("backbone", "toy-wan")
    expect(slider).to_be_enabled()
    expect(slider).to_have_attribute("max", "9")
    expect(number).to_have_value("5")
    expect(ada.slider("sigma")[1]).to_have_value("0.3")


def test_nothing_covers_a_control_when_the_window_panel_is_open(ada: Visitor) -> None:
    panel = ada.page.get_by_text("Window: which frames")
    with ada.sized(1440, 900):
        panel.click()
        expect(ada.page.locator("#count")).to_be_visible()
        for name in ("start", "stride", "layer", "sigma"):
            slider = ada.page.locator(f"#{name} input[type=range]")
            slider.scroll_into_view_if_needed()
            covered = slider.evaluate(
                """slider => {
                  const box = slider.getBoundingClientRect();
                  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                  const top = document.elementFromPoint(x, y);
                  return top !== slider && !top.contains(slider);
                }"""
            )
            assert not covered, name
        panel.click()
        expect(ada.page.locator("#count")).to_be_hidden()


@pytest.mark.parametrize("layer", [5, 4], ids=["probe", "no-probe"])
@pytest.mark.parametrize("size", [(1280, 720), (1600, 1000)])
def test_run_stop_progress_and_the_cell_are_seen_without_scrolling(
    ada: Visitor, size: tuple[int, int], layer: int
) -> None:
    ada.begin(layer=layer)
    said = "A probe reads it" if layer == 5 else "There are probes for layers 1, 3, 5, 7"
    expect(ada.page.locator("#cell")).to_contain_text(said)
    with ada.sized(*size):
        for name in ("run", "stop", "status", "backbone", "layer", "sigma", "cell"):
            box = ada.page.locator(f"#{name}").bounding_box()
            assert box is not None, name
            assert 0 <= box["y"] < box["y"] + box["height"] <= size[1], name
            assert 0 <= box["x"] < box["x"] + box["width"] <= size[0], name
        ada.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(ada.page.locator("#run")).to_be_in_viewport()


def test_before_the_first_run_empty_panels_say_what_they_will_hold(ada: Visitor) -> None:
    expect(ada.page.locator("#legend")).to_have_count(0)
    for tab in ("Metrics", "Log", "Export", "Correspondence"):
        ada.tab(tab)
        expect(ada.page.get_by_role("tabpanel").filter(visible=True)).to_contain_text("After a run")
        expect(ada.page.locator("#log")).to_have_count(0)
    expect(ada.page.locator("#make_rrd")).to_be_disabled()
    expect(ada.page.locator("#make_json")).to_be_disabled()


def test_the_first_points_are_seen_during_a_run_and_the_references_beside_them_after_it(
    ada: Visitor, server: Server
) -> None:
    ada.begin()
    with ada.without_intro():
        ada.empty(*PREDICTION)
        ada.empty(*REFERENCE)
    with server.holding(2):
        ada.start()
        expect(ada.page.locator("#status")).to_contain_text("2 of 5 frames")
        ada.received(least=4)  # the clip, the rest of its frames, two predictions
        # Cameras and axes alone give some 900 pixels of a strong colour.
        ada.drawn(*PREDICTION, least=1500)
        assert ada.colourful(*REFERENCE) < 300
        assert "2 of 5 frames" in ada.status
        expect(ada.page.locator("#stop")).to_be_enabled()
        expect(ada.page.locator("#film .tile")).to_have_count(5)  # a pixel can be picked already
    # And the run goes on to its end: the points of the reference come beside them.
    assert ada.ended() == "done", ada.status
    assert "comparison" in ada.status
    ada.drawn(*PREDICTION, least=1500)
    ada.drawn(*REFERENCE, least=1500)
    # Two lists of the pieces that come in the wrong order cost a piece twice, which does no harm.
    pieces = set(ada.segments)
    assert 6 <= len(pieces) <= len(ada.segments) <= len(pieces) + 2, "not all again and again"
    for scale in ("Depth", "Point error"):
        expect(
            ada.page.locator("#legend p").filter(has_text=scale).locator(".ramp")
        ).to_be_visible()


def test_results_of_another_layer_than_the_control_says_are_called_old_and_dimmed(
    ada: Visitor,
) -> None:
    layer = 5
    ada.begin(layer=layer)
    ada.looked()
    ada.choose("layer", layer + 2)
    line = ada.page.locator("#stale .stale")
    expect(line).to_contain_text(f"Shown: room orbit 01, toy-wan, layer {layer}, sigma 0.30.")
    expect(line).to_contain_text(f"layer {layer + 2}: press Run")
    ada.page.locator("#layer input[type=number]").fill("")  # on the way to another number
    ada.page.wait_for_timeout(700)  # nothing announces what should not happen
    for name in ("stale", "cell", "preview"):
        assert "Error" not in ada.page.locator(f"#{name}").inner_text()
    for name in ("viewer", "film"):
        expect(ada.page.locator(f"#{name}")).to_have_css("opacity", "0.42")
    ada.choose("layer", layer)
    expect(line).to_have_count(0)
    expect(ada.page.locator("#viewer")).to_have_css("opacity", "1")
    ada.pick_clip(1)
    expect(line).to_contain_text(ada.page.locator("#preview b").inner_text())
    ada.pick_clip(0)
    expect(line).to_have_count(0)


def test_a_click_on_a_frame_fills_the_others_with_heatmaps_and_errors(ada: Visitor) -> None:
    ada.begin()
    ada.looked()
    before = ada.tiles().nth(3).locator("img").get_attribute("src") or ""
    ada.tiles().nth(1).locator("img").click(position={"x": 90, "y": 60})
    expect(ada.page.locator("#film .headline")).to_contain_text("in frame 1.")
    expect(ada.page.locator("#film .tile.heat")).to_have_count(ada.tiles().count() - 1)
    expect(ada.tiles().nth(1)).to_have_class("tile picked")
    expect(ada.tiles().nth(3).locator("img")).not_to_have_attribute("src", before)


def test_a_click_on_the_input_picture_in_the_viewer_picks_there(ada: Visitor) -> None:
    ada.begin()
    ada.looked()
    # At rest the viewer shows the last slot's frame, in this pane as in the others.
    ada.pick_in_viewer(*INPUT, said="in frame 13.")
    expect(ada.page.locator("#film .tile.picked b")).to_have_text("frame 13")


def test_a_click_on_a_cell_of_the_map_runs_that_cell(ada: Visitor) -> None:
    ada.begin()
    ada.looked()
    ada.tiles().nth(1).locator("img").click()
    expect(ada.page.locator("#film .tile.picked")).to_have_count(1)
    ada.tab("map")
    ada.page.wait_for_selector("#map .nsewdrag")
    layer, sigma = ada.chosen("layer"), ada.chosen("sigma")
    plot = ada.page.locator("#map .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    # The lower left cell: the smallest layer and sigma, which no page starts with.
    with ada.starting():
        ada.page.mouse.click(box["x"] + 0.05 * box["width"], box["y"] + 0.92 * box["height"])
    assert ada.ended() == "done", ada.status
    assert ada.chosen("layer") < layer
    assert ada.chosen("sigma") < sigma
    ada.tab("Metrics")
    cell = f"layer {ada.chosen('layer'):.0f}, sigma {ada.chosen('sigma'):.2f}"
    expect(ada.page.locator("#metrics tr.mean").first).to_contain_text(cell)
    expect(ada.page.locator("#stale .stale")).to_have_count(0)
    expect(ada.page.locator("#metrics tr.this")).to_contain_text("nothing moves")
    ada.tab("Correspondence")
    expect(ada.page.locator("#film .tile.picked")).to_have_count(1)  # the pick stayed


def test_the_recording_and_the_summary_can_be_downloaded(ada: Visitor, tmp_path: Path) -> None:
    from explorer.recording import points_by_frame

    ada.pick_clip(0)
    ada.looked()
    ada.tab("Export")
    with ada.page.expect_download() as download:
        ada.page.click("#make_rrd")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    frames = points_by_frame(path)
    assert 0 in frames
    shown = [frame for frame in frames.values() if frame.reference is not None]
    assert all(frame.prediction is not None for frame in shown)
    with ada.page.expect_download() as download:
        ada.page.click("#make_json")
    assert download.value.suggested_filename == path.with_suffix(".json").name
    layer, sigma = ada.chosen("layer"), ada.chosen("sigma")
    asked = f"?clip=room-orbit-01&backbone=toy-wan&layer={layer:.0f}&sigma={sigma:.2f}"
    expect(ada.page.locator("#link a")).to_have_attribute(
        "href", re.compile(re.escape(asked) + "$")
    )


def test_stop_ends_a_run_and_the_page_runs_again(ada: Visitor, server: Server) -> None:
    ada.begin()
    ada.pick_clip(2)
    ada.quiet()
    with server.holding(0):  # a page that is busy drawing may be too late for a short run
        assert start_and_stop(ada) == "stopped"
    assert ada.run() == "done"


def test_run_is_heard_in_the_moment_in_which_the_answer_to_another_event_ends(
    ada: Visitor,
) -> None:
    ada.begin()
    ada.looked()
    ada.tab("map")
    ada.page.wait_for_selector("#map .nsewdrag")
    ada.quiet()
    start_as_the_stream_ends(ada, ada.page.locator("#metric label:not(.selected)").first.click)
    assert ada.ended() == "done", ada.status
    ada.page.locator("#metric label").first.click()
    ada.tab("Correspondence")


def test_a_page_that_hears_a_run_all_at_once_shows_what_any_other_page_does(
    visit: Callable[[], Visitor], server: Server
) -> None:
    eve = visit()
    with server.holding(2):
        start_and_look_away(eve, 3)
        expect(eve.page.locator("#status")).to_contain_text("2 of 5 frames")
        expect(eve.page.locator("#intro")).to_be_hidden()
        expect(eve.page.locator("#stop")).to_be_enabled()
        eve.received(least=4)
        eve.drawn(*PREDICTION, least=1500)
    assert eve.ended() == "done", eve.status
    before = len(set(eve.segments))
    start_and_look_away(eve, 3)  # this time until after its end: all of it is in the store
    assert eve.ended() == "done", eve.status
    eve.received(least=before + 6)
    eve.drawn(*PREDICTION, least=1500)
    eve.drawn(*REFERENCE, least=1500)
    expect(eve.page.locator("#stop")).to_be_disabled()
    expect(eve.page.locator("#legend")).to_contain_text("Point error")
    eve.tab("Log")
    expect(eve.page.locator("#log")).to_contain_text("seconds")
    assert not eve.problems
    eve.page.context.close()


def test_a_cell_without_a_probe_still_shows_correspondence_and_names_cells_that_have_one(
    ada: Visitor,
) -> None:
    ada.begin(layer=4)
    ada.looked()
    expect(ada.page.locator("#cell")).to_contain_text("No probe for this cell")
    expect(ada.page.locator("#cell")).to_contain_text("layers 1, 3, 5, 7")
    expect(ada.page.locator("#status")).to_contain_text("no probe")
    ada.tab("Correspondence")
    ada.tiles().first.locator("img").click()
    expect(ada.page.locator("#film .headline")).to_contain_text("in frame 0.")
    expect(ada.page.locator("#film .tile.heat").first).to_be_visible()
