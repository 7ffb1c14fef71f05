"""The correspondence pane: the frames of all slots; a click on any pixel fills it with heatmaps."""

from __future__ import annotations

from html import escape

import numpy as np

from app._gradio import gr
from app.pictures import data_url
from app.state import Look, Pick
from explorer._typing import UInt8
from explorer.correspondence import Correspondence, SlotMatch, correspond
from explorer.tiles import correspondence_tiles

EMPTY = "<div class='film empty'>Run a look first; then click any pixel of any frame here.</div>"

# A click anywhere on a tile, or Enter on a focused one (its centre), names slot and place.
PICK_JS = """
const pick = (tile, x, y) => {
  if (!tile) return;
  tile.classList.add('asked');
  trigger('pick', {slot: Number(tile.dataset.slot), x: x, y: y});
};
element.addEventListener('click', event => {
  const image = event.target.closest('.tile img');
  if (!image) return;
  const box = image.getBoundingClientRect();
  pick(image.closest('.tile'), (event.clientX - box.left) / box.width,
       (event.clientY - box.top) / box.height);
});
element.addEventListener('keydown', event => {
  if (event.key !== 'Enter' && event.key !== ' ') return;
  const tile = event.target.closest('.tile');
  if (!tile) return;
  event.preventDefault();
  pick(tile, 0.5, 0.5);
});
"""


def component() -> gr.HTML:
    """The pane; its `pick` event carries slot and (x, y) as fractions of the frame."""
    return gr.HTML(EMPTY, js_on_load=PICK_JS, elem_id="film")


def show(look: Look, pick: Pick | None) -> str:
    """The pane for one look: plain frames, or the heatmaps of a picked pixel.

    Args:
        look: with clip and features.
        pick: the chosen pixel; ignored if this clip has no such slot.
    """
    if look.clip is None or look.features is None:
        return EMPTY
    frames = look.clip.frames[look.features.slot_frames]
    if pick is None or not 0 <= pick.slot < len(frames):
        names = [f"frame {int(frame)}" for frame in look.features.slot_frames]
        captions = [(name, "") for name in names]
        return _film("Click any pixel of any frame.", list(frames), captions, picked=None)
    height, width = look.clip.size
    found = correspond(
        look.features,
        pick.x * width,
        pick.y * height,
        int(look.features.slot_frames[pick.slot]),
        size=(height, width),
        reference=look.reference,
    )
    captions = [_caption(match) for match in found.matches]
    tiles = correspondence_tiles(frames, found)
    return _film(_headline(found, look), tiles, captions, picked=found.slot)


def _headline(found: Correspondence, look: Look) -> str:
    where = f"Picked ({found.x:.0f}, {found.y:.0f}) in frame {found.frame}."
    if look.reference is None:
        return f"{where} No reference: where the point truly went is not known."
    if found.error_px is None:
        return f"{where} No other frame sees this point."
    return f"{where} Mean error where the point is visible: {found.error_px:.1f} px."


def _caption(match: SlotMatch) -> tuple[str, str]:
    name = f"frame {match.frame}"
    if match.picked:
        return name, "picked"
    similarity = f"cos {match.similarity:.2f}"
    if match.error_px is not None:
        return name, f"{match.error_px:.1f} px · {similarity}"
    known = {"occluded": "occluded", "out of view": "out of view"}.get(match.status)
    return name, f"{known} · {similarity}" if known else similarity


def _film(
    headline: str,
    pictures: list[UInt8[np.ndarray, "H W 3"]],
    captions: list[tuple[str, str]],
    *,
    picked: int | None,
) -> str:
    tiles = []
    for slot, (picture, (name, note)) in enumerate(zip(pictures, captions, strict=True)):
        kind = "tile" if picked is None else "tile picked" if slot == picked else "tile heat"
        tiles.append(
            f"<figure class='{kind}' data-slot='{slot}' tabindex='0' role='button' "
            f"aria-label='{escape(name)}: pick a pixel'>"
            f"<img src='{data_url(picture)}' alt='{escape(name)}' draggable='false'>"
            f"<figcaption><b>{escape(name)}</b><span>{escape(note)}</span></figcaption></figure>"
        )
    legend = (
        ""
        if picked is None
        else "<span class='key'><i class='cross'></i>best match <i class='ring'></i>true match "
        "<i class='ramp'></i>cosine similarity</span>"
    )
    return (
        f"<div class='film'><p class='headline'>{escape(headline)}{legend}</p>"
        f"<div class='strip'>{''.join(tiles)}</div></div>"
    )
