"""The best judge at hand: who is asked, in which order, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from explorer import references
from explorer.camera import Cameras, unproject
from explorer.clip import Clip, clip_from_frames
from explorer.errors import Cancelled, NoReconstruction, ReferenceError3D
from explorer.reconstruction import Reconstruction
from explorer.references import Context, Entry, colmap, estimate

CLIP = clip_from_frames(np.zeros((9, 16, 24, 3), np.uint8), name="nobody's")
ASKED = Context(frames=(0, 1, 5))


def found(source: str, at: list[int], **facts: Any) -> Reconstruction:
    count = len(at)
    depth = np.ones((count, 16, 24), np.float32)
    lens = np.array([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]])
    pose = np.tile(np.eye(3, 4), (count, 1, 1))
    cameras = Cameras(pose, np.tile(lens, (count, 1, 1)), (16, 24))
    return Reconstruction(
        frames=np.array(at),
        depth=depth,
        points=unproject(depth, cameras),
        confidence=depth,
        cameras=cameras,
        source=source,
        provenance=facts,
    )


def colmap_found(frames: list[int]) -> Reconstruction:
    facts = {"registered": len(frames), "frames": 9, "reprojection_error_px": 0.42}
    return found("colmap", frames, **facts, note=colmap._note(facts))


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the judges by those that a test wants; the others are not here."""
    references.names()  # let the shipped ones register first
    for name in estimate.JUDGES:
        entry = references._references[name]
        gone = Entry(entry.title, entry.reference, lambda: "not here", None, entry.remark)
        monkeypatch.setitem(references._references, name, gone)

    def put(name: str, answer: Callable[[Clip, Context], Any]) -> None:
        remark = references._references[name].remark
        monkeypatch.setitem(references._references, name, Entry(name, answer, None, None, remark))

    return put


def refuse(clip: Clip, context: Context) -> None:
    raise NoReconstruction("too little parallax")


def test_colmap_is_preferred_where_it_registers_the_clip(offer: Callable[..., None]) -> None:
    offer("colmap", lambda clip, context: colmap_found([0, 1, 2, 5]))
    offer("toy-vggt", lambda clip, context: pytest.fail("nobody else is asked"))
    made = references.reconstruct("estimate", CLIP, ASKED)
    assert made is not None
    assert (made.source, made.provenance["judge"]) == ("colmap", "colmap")
    assert references.note("estimate", made) == (
        "the reference is colmap's: it registered 4 of 9 frames at 0.42 px, and no network had a "
        "hand in it"
    )


def test_what_colmap_refuses_a_network_estimates_and_the_note_says_why(
    offer: Callable[..., None],
) -> None:
    offer("colmap", refuse)
    offer("toy-vggt", lambda clip, context: found("toy-vggt", [0, 1, 5]))
    made = references.reconstruct("estimate", CLIP, ASKED)
    assert made is not None
    assert made.source == "toy-vggt"
    note = references.note("estimate", made)
    assert note is not None
    assert note.startswith("the reference toy-vggt is a toy estimate, not ground truth; ")
    assert "colmap: too little parallax" in note
    assert "vggt is not here" in note


def test_a_larger_network_comes_before_a_smaller_one(offer: Callable[..., None]) -> None:
    for name in ("vggt", "da3-base", "da3-small", "toy-vggt"):
        offer(name, lambda clip, context, name=name: found(name, [0, 1, 5]))
    made = references.reconstruct("estimate", CLIP, ASKED)
    assert made is not None
    assert made.source == "vggt"


@pytest.mark.parametrize(("frames", "judge"), [([2, 3, 5], "toy-vggt"), ([0, 3, 5], "colmap")])
def test_a_judge_of_too_few_of_the_compared_frames_is_passed_over(
    frames: list[int], judge: str, offer: Callable[..., None]
) -> None:
    offer("colmap", lambda clip, context: colmap_found(frames))
    offer("toy-vggt", lambda clip, context: found("toy-vggt", [0, 1, 5]))
    made = references.reconstruct("estimate", CLIP, ASKED)
    assert made is not None
    assert made.source == judge
    if judge == "toy-vggt":
        assert "colmap has only 33% of the frames" in str(references.note("estimate", made))


def test_where_nobody_can_each_says_why(offer: Callable[..., None]) -> None:
    offer("colmap", refuse)
    with pytest.raises(NoReconstruction, match="colmap: too little parallax; vggt is not here"):
        references.reconstruct("estimate", CLIP, ASKED)


def test_where_nobody_is_here_it_is_not_offered(offer: Callable[..., None]) -> None:
    assert "estimate" not in references.offered()
    assert references.suggest(CLIP) is None
    with pytest.raises(ReferenceError3D, match=r"pip install 'emerge3d\[colmap\]'"):
        references.reconstruct("estimate", CLIP, ASKED)
    offer("colmap", refuse)
    assert references.suggest(CLIP) == "estimate"
    assert list(references.offered())[:2] == ["exact", "estimate"]
    assert references.label("estimate") == "estimate (best judge at hand, not ground truth)"


def test_stop_is_not_taken_for_a_judge_that_cannot(offer: Callable[..., None]) -> None:
    def stopped(clip: Clip, context: Context) -> None:
        raise Cancelled("stopped")

    offer("colmap", stopped)
    offer("toy-vggt", lambda clip, context: pytest.fail("it went on"))
    with pytest.raises(Cancelled):
        references.reconstruct("estimate", CLIP, ASKED)
