"""What no backbone takes, and what it says then."""

from __future__ import annotations

import pytest
from asking import ask, make_clip

from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone
from explorer.errors import BackboneError


@pytest.mark.parametrize("sigma", [-0.1, 1.1, float("nan")])
def test_sigma_outside_its_range_is_refused(backbone: Backbone, sigma: float) -> None:
    with pytest.raises(BackboneError, match=r"outside \[0, 1\]"):
        ask(backbone, make_clip(backbone, 1), sigma=sigma)


def test_layers_that_do_not_exist_are_refused(backbone: Backbone) -> None:
    clip, count = make_clip(backbone, 1), backbone.card.layers
    for layers in ([count], [-1], [0, count]):
        with pytest.raises(BackboneError, match=f"layers 0 to {count - 1}"):
            backbone.extract(clip, layers=layers, sigma=0.3)
    with pytest.raises(BackboneError, match="at least one layer"):
        backbone.extract(clip, layers=[], sigma=0.3)


def test_a_prompt_is_embedded_or_refused_and_never_left_out(full: Backbone) -> None:
    card = full.card
    expected = "no embedding of this prompt is known" if card.takes_prompt else "takes no prompt"
    for ask_for in (registry.hashes, registry.load):
        with pytest.raises(BackboneError, match=expected):
            ask_for(card.id, target=Target(device="cpu", prompt="a chair"))


def test_frame_counts_that_do_not_fit_are_answered_with_one_that_does(backbone: Backbone) -> None:
    card, calls = backbone.card, backbone.calls
    if card.frame_step > 1:
        for count in (card.frame_step, 4 * card.frame_step):
            fits = (count - 1) // card.frame_step * card.frame_step + 1
            with pytest.raises(BackboneError, match=f"choose {fits}$"):
                ask(backbone, make_clip(backbone, count))
    with pytest.raises(BackboneError, match=f"at most {card.max_frames} frames"):
        ask(backbone, make_clip(backbone, card.max_frames + card.frame_step))
    assert backbone.calls == calls
