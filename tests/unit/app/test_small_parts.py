"""Links, windows, words about cells, progress, bindings, streams."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_models import small_card

from app import cell, film, gallery, links, pictures, progress, window
from app.looks import Look
from app.state import Pick, Source
from app.streams import drop_ended
from app.window import Window
from explorer.camera import Cameras
from explorer.clip import VideoInfo, clip_from_frames
from explorer.features import Features
from explorer.look import (
    Compared,
    Decoded,
    FeaturesReady,
    Finished,
    LatentsReady,
    LookRequest,
    Predicted,
    Referenced,
)
from explorer.probe.checkpoint import ProbeCard
from explorer.reconstruction import Reconstruction

CARD = small_card("tiny", width=4, input_size=(16, 32), token_grid=(2, 4))


def video(frames: int, fps: float = 24.0) -> Source:
    info = VideoInfo(frames, fps, frames / fps, (36, 64))
    return Source(Path("clip.mp4"), "clip", info, shipped=False)


def tiny_look(*, reference: bool) -> Look:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (5, 16, 32, 3)).astype(np.uint8)
    features = Features(
        values=rng.normal(size=(2, 2, 4, 4)).astype(np.float16),
        frame_to_slot=np.array([0, 1, 1, 1, 1]),
        slot_frames=np.array([0, 1]),
        backbone="tiny",
        backbone_hash="0",
        layer=1,
        sigma=0.3,
        timestep=300.0,
        official_index=0,
        seed=0,
    )
    found = Look("id", LookRequest("clip.mp4", "tiny", 1, 0.3))
    found.clip = clip_from_frames(frames, name="clip.mp4")
    found.features = features
    if reference:
        depth = np.ones((2, 16, 32), np.float32)
        eye = np.tile(np.eye(3, 4), (2, 1, 1))
        lens = np.tile(np.array([[20.0, 0, 16], [0, 20, 8], [0, 0, 1]]), (2, 1, 1))
        found.reference = Reconstruction(
            frames=np.array([0, 1]),
            depth=depth,
            points=np.ones((2, 16, 32, 3), np.float32),
            confidence=depth,
            cameras=Cameras(eye, lens, (16, 32)),
            source="exact",
        )
    return found


def probe(layer: int, sigma: float) -> ProbeCard:
    return ProbeCard("tiny", "0", layer, sigma, 4, {}, {}, 0, 0.0, {}, "", True, Path("x"))


def test_a_cell_says_its_noise_in_the_models_terms_and_in_the_papers() -> None:
    said = re.sub("<[^>]*>", "", cell.note("toy-wan", 5, 0.3))
    assert "= model timestep 300, official index 876" in said
    assert "official index" not in cell.note("rgb", 0, 0.5)
    assert "sigma is ignored" in cell.note("rgb", 0, 0.5)


def test_a_link_says_its_cell_and_is_read_back() -> None:
    asked = links.Cell("orbit 1&2", "toy-wan", 5, 0.3)
    text = links.query(asked)
    assert text == "?clip=orbit+1%262&backbone=toy-wan&layer=5&sigma=0.30"
    assert (
        links.parse({"clip": "orbit 1&2", "backbone": "toy-wan", "layer": "5", "sigma": "0.30"})
        == asked
    )


@pytest.mark.parametrize(
    "query", [{"layer": "five"}, {"sigma": "2"}, {"sigma": "nan"}, {"clip": ""}, {"other": "1"}]
)
def test_nonsense_in_a_link_is_ignored(query: dict[str, str]) -> None:
    assert links.parse(query) == links.Cell()


def test_frame_counts_are_those_the_backbone_takes_and_the_video_has() -> None:
    assert window.counts(CARD, 100) == [1, 5, 9, 13, 17]
    assert window.counts(CARD, 10) == [1, 5, 9]
    every = dataclasses.replace(CARD, frame_step=1)
    assert window.counts(every, 100)[-1] == 17
    assert len(window.counts(every, 100)) <= window.SHOWN_COUNTS


@pytest.mark.parametrize("frames", [1, 3, 17, 18, 40, 5000])
def test_the_suggested_window_fits_the_video(frames: int) -> None:
    chosen = window.suggested(video(frames, fps=60.0), CARD)
    assert chosen.last < frames
    assert chosen.count in window.counts(CARD, frames)


def test_a_window_past_the_end_is_explained_before_anything_is_decoded() -> None:
    said = window.preview(video(20), Window(10, 2, 17))
    assert "ends at frame 42" in said
    assert "last frame is 19" in said


def test_names_of_uploads_are_escaped() -> None:
    source = dataclasses.replace(video(20), name="<script>x</script>.mp4")
    said = window.preview(source, Window(10, 2, 17))
    assert "<script>" not in said
    assert "&lt;script&gt;" in said


def test_cells_with_a_probe_are_named_shortly() -> None:
    grid = [probe(layer, sigma) for layer in (3, 1) for sigma in (0.3, 0.1)]
    assert cell.where(grid) == "layers 1, 3 × sigma 0.10, 0.30"
    assert cell.where(grid[:3]) == "layer 1 × sigma 0.30; layer 3 × sigma 0.10, 0.30"
    assert cell.where([]) == ""


def test_progress_tells_stages_with_their_seconds_and_what_was_stored() -> None:
    found = tiny_look(reference=False)
    assert found.clip is not None
    assert found.features is not None
    steps = progress.Progress()
    assert "Decoding the clip" in steps.html()
    steps.add(Decoded(seconds=0.1, clip=found.clip))
    steps.add(LatentsReady(seconds=0.5, cached=False))
    # Half a second after the start, 0.1 of it the clip's.
    assert "latents<b>0.40 s</b>" in steps.html()
    steps.add(LatentsReady(seconds=0.5, cached=True))
    assert "latents<b>stored</b>" in steps.html()
    steps.add(LatentsReady(seconds=0.5, cached=None))
    assert "latents<b>skipped</b>" in steps.html()
    assert "Skipped where the features were stored" in steps.html()
    assert "Running the backbone" in steps.html()
    steps.add(FeaturesReady(seconds=1.0, features=found.features, cached=False))
    steps.add(Predicted(seconds=1.0, reconstruction=None, reason="none", cached=False))
    steps.add(Referenced(seconds=1.1, reconstruction=None, full=None, note="none"))
    steps.add(Compared(seconds=1.2, report=None, correspondence=None))
    steps.add(Finished(seconds=1.3, summary={}))
    said = steps.html("Done", kind="done")
    for words in ("no probe", "reference<b>none", "comparison<b>nothing", "status done"):
        assert words in said
    assert "reference<b>none</b>" in said
    assert steps.finished == 1.3


def test_time_that_a_reference_took_in_vain_is_shown() -> None:
    steps = progress.Progress()
    steps.add(Referenced(seconds=11.2, reconstruction=None, full=None, note="none"))
    assert "reference<b>none, 11.20 s</b>" in steps.html()


def test_a_message_in_the_status_line_is_escaped() -> None:
    assert "<b>x" not in progress.Progress().html("<b>x.mp4</b> is empty", kind="failed")


def test_the_film_shows_plain_frames_until_a_pixel_is_picked() -> None:
    found = tiny_look(reference=True)
    assert found.features is not None
    # Nothing moves, and the token under the picked pixel (16, 8) is found again around (12, 4).
    found.features.values[0, 0, 1] = found.features.values[1, 1, 2]
    plain = film.show(found, None)
    assert plain.count("<figure class='tile'") == 2
    assert " px" not in plain
    picked = film.show(found, Pick(1, 0.5, 0.5))
    assert picked.count("tile picked") == 1
    assert picked.count("tile heat") == 1
    assert "in frame 1." in picked
    assert re.findall(r"\d+\.\d px", picked) == [f"{np.hypot(4, 4):.1f} px"] * 2
    assert "Correspondence error: 5.7 px" in picked
    assert "<span>5.7 px · cos 1.00</span>" in picked


def test_the_film_says_that_there_is_no_reference() -> None:
    said = film.show(tiny_look(reference=False), Pick(1, 0.1, 0.9))
    assert "No reference" in said
    assert not re.findall(r"\d px", said)
    assert "class='ring'" not in said


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("exact", "true match"),
        ("toy-vggt", "match by the reference"),
        ("tum: depth camera", "match by the reference"),
    ],
)
def test_only_exact_geometry_is_said_to_know_the_true_match(source: str, words: str) -> None:
    found = tiny_look(reference=True)
    assert found.reference is not None
    found.reference = dataclasses.replace(found.reference, source=source)
    said = film.show(found, Pick(1, 0.5, 0.5))
    assert f"<i class='ring'></i>{words} <i class='ramp'>" in said
    assert ("true match" in said) is (source == "exact")


@pytest.mark.parametrize(
    ("backbone", "said"), [("toy-wan", True), ("latent", True), ("rgb", False)]
)
def test_the_film_says_why_frame_0_matches_badly_behind_a_vae(backbone: str, said: bool) -> None:
    found = tiny_look(reference=True)
    assert found.features is not None
    found.features = dataclasses.replace(found.features, backbone=backbone)
    assert (film.ALONE in film.show(found, Pick(0, 0.5, 0.5))) == said
    assert film.ALONE not in film.show(found, Pick(1, 0.5, 0.5))


def test_a_pick_in_any_frame_of_a_slot_shows_that_frame() -> None:
    found = tiny_look(reference=True)
    first, third = film.show(found, Pick(1, 0.5, 0.5)), film.show(found, Pick(3, 0.5, 0.5))
    assert "<figure class='tile picked' data-frame='3'" in third
    assert "in frame 3." in third
    picture = "<img src='([^']*)' alt='frame {}'"
    assert re.findall(picture.format(3), third) != re.findall(picture.format(1), first)
    assert re.findall(picture.format(0), third) == re.findall(picture.format(0), first)


def test_a_pick_in_a_frame_that_the_clip_lacks_is_ignored() -> None:
    assert "tile picked" not in film.show(tiny_look(reference=False), Pick(7, 0.5, 0.5))


def test_a_picture_becomes_a_data_url_that_decodes_to_it() -> None:
    import base64

    import cv2

    image = np.full((16, 24, 3), (200, 40, 10), np.uint8)
    url = pictures.data_url(image)
    head, data = url.split(",")
    assert head == "data:image/jpeg;base64"
    back = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    assert np.abs(back[..., ::-1].astype(int) - image).max() < 12


def test_only_streams_that_have_ended_are_dropped() -> None:
    ended, going = SimpleNamespace(ended=True), SimpleNamespace(ended=False)
    page = SimpleNamespace(
        pending_streams={"me": {"old": {1: ended}, "new": {1: going}}, "you": {"x": {1: ended}}}
    )
    assert drop_ended(page, "me") == 1
    assert page.pending_streams == {"me": {"new": {1: going}}, "you": {"x": {1: ended}}}
    assert drop_ended(page, "nobody") == 0
    assert drop_ended(SimpleNamespace(), "me") == 0


def test_a_bound_handler_names_components_and_keeps_its_signature() -> None:
    from app._gradio import gr
    from app.binding import bound

    class Handlers:
        def once(self, value: int, event: gr.EventData) -> dict[str, Any]:
            return {"a": value} if value else {}

        def stream(self, value: int) -> Iterator[dict[str, Any]]:
            yield {"a": value}
            yield {}

    first, second = object(), object()
    once = bound(Handlers().once, {"a": first, "b": second})
    assert once(3, None) == {first: 3}
    assert once(0, None) == gr.skip()
    assert list(inspect.signature(once).parameters) == ["value", "event"]
    stream = bound(Handlers().stream, {"a": first})
    assert inspect.isgeneratorfunction(stream)
    assert list(stream(1)) == [{first: 1}, gr.skip()]
    with pytest.raises(KeyError):
        bound(lambda: {"typo": 1}, {"a": first})()
    given = gr.update(value=1)
    bound(lambda: {"a": given}, {"a": first})()[first].pop("value")
    assert given["value"] == 1, "Gradio takes it out of what it is given"


def test_clips_that_cannot_be_opened_stay_out_of_the_gallery(
    tmp_path: Path, make_video: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    make_video("clips/orbit-room.mp4")
    (folder / "broken.mp4").write_bytes(b"nothing")
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    gallery.shipped.cache_clear()
    gallery.thumbnails.cache_clear()
    try:
        assert [source.name for source in gallery.shipped()] == ["orbit room"]
        assert gallery.find("orbit-room") is not None
        assert gallery.find("../secret") is None
        assert gallery.thumbnails()[0].shape == (90, 160, 3)
    finally:
        gallery.shipped.cache_clear()
        gallery.thumbnails.cache_clear()
