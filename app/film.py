"""The correspondence pane: the frames of all slots; a click on any pixel fills it with heatmaps."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

from app._gradio import gr
from app.looks import Look
from app.pictures import data_url
from app.state import Pick
from explorer._typing import UInt8
from explorer.backbones import registry
from explorer.correspondence import Correspondence, SlotMatch, correspond
from explorer.tiles import correspondence_tiles

EMPTY = (
    "<div class='film empty'>After a run: frames of the clip. A click on any pixel shows where the "
    "features of this layer find it again in the other frames.</div>"
)

# A click anywhere on a tile, or Enter on a focused one (its centre), names its frame and place.
PICK_JS = """
const pick = (tile, x, y) => {
  if (!tile) return;
  tile.classList.add('asked');
  trigger('pick', {frame: Number(tile.dataset.frame), x: x, y: y});
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

LEGEND = (
    "<span class='key'><i class='cross'></i>best match {ring}"
    "<i class='ramp'></i>cosine similarity (cos) of the features, low to high; px: correspondence "
    "error</span>"
)

ALONE = (
    "This model encodes frame 0 alone and later ones in groups, so that matches with it are often "
    "poor: a later frame shows more."
)


@dataclass(frozen=True)
class Tile:
    """One picture of the pane; `kind` is "picked", "heat", or nothing before a pick."""

    picture: UInt8[np.ndarray, "H W 3"]
    frame: int
    note: str = ""
    kind: str = ""


def component() -> gr.HTML:
    """The pane; its `pick` event carries frame and (x, y) as fractions of it."""
    return gr.HTML(EMPTY, js_on_load=PICK_JS, elem_id="film")


def show(look: Look, pick: Pick | None) -> str:
    """The pane for one look: plain frames, or the heatmaps of a picked pixel.

    Args:
        look: with clip and features.
        pick: the chosen pixel; ignored if this clip has no such frame.
    """
    if look.clip is None or look.features is None:
        return EMPTY
    numbers = [int(frame) for frame in look.features.slot_frames]
    if pick is None or not 0 <= pick.frame < len(look.clip.frames):
        tiles = [Tile(look.clip.frames[number], number) for number in numbers]
        return _film("Click any pixel of any frame: where is it in the others?", tiles)
    height, width = look.clip.size
    found = correspond(
        look.features,
        pick.x * width,
        pick.y * height,
        pick.frame,
        size=(height, width),
        reference=look.reference,
    )
    # A slot may hold several frames: its tile shows the picked one instead of the first.
    numbers[found.slot] = found.frame
    pictures = correspondence_tiles(look.clip.frames[numbers], found)
    tiles = [
        Tile(picture, number, _note(match), "picked" if match.picked else "heat")
        for picture, number, match in zip(pictures, numbers, found.matches, strict=True)
    ]
    return _film(_headline(found, look), tiles, legend=_legend(look))


def _legend(look: Look) -> str:
    """What the marks mean; only the renderer's matches are true ones, the rest are somebody's."""
    if look.reference is None:
        return LEGEND.format(ring="")
    whose = "true match" if look.reference.source == "exact" else "match by the reference"
    return LEGEND.format(ring=f"<i class='ring'></i>{whose} ")


def _headline(found: Correspondence, look: Look) -> str:
    said = _found(found, look)
    return f"{said} {ALONE}" if found.slot == 0 and _first_alone(look) else said


def _found(found: Correspondence, look: Look) -> str:
    where = f"Picked ({found.x:.0f}, {found.y:.0f}) in frame {found.frame}."
    if look.reference is None:
        return f"{where} No reference: where the point truly went is not known."
    if found.error_px is None:
        return f"{where} No other frame sees this point."
    return f"{where} Correspondence error: {found.error_px:.1f} px, mean of the frames that see it."


def _first_alone(look: Look) -> bool:
    """Whether frame 0 went through a VAE alone, and later frames several at a time."""
    features = look.features
    if features is None or features.frame_to_slot[:3].tolist() != [0, 1, 1]:
        return False
    return registry.card(features.backbone).uses_sigma  # noise is added to what a VAE makes


def _note(match: SlotMatch) -> str:
    if match.picked:
        return "picked"
    similarity = f"cos {match.similarity:.2f}"
    if match.error_px is not None:
        return f"{match.error_px:.1f} px · {similarity}"
    known = {"occluded": "occluded", "out of view": "out of view"}.get(match.status)
    return f"{known} · {similarity}" if known else similarity


def _film(headline: str, tiles: list[Tile], *, legend: str = "") -> str:
    return (
        f"<div class='film'><p class='headline'>{escape(headline)}{legend}</p>"
        f"<div class='strip'>{''.join(_html(tile) for tile in tiles)}</div></div>"
    )


def _html(tile: Tile) -> str:
    name = f"frame {tile.frame}"
    return (
        f"<figure class='{f'tile {tile.kind}'.strip()}' data-frame='{tile.frame}' tabindex='0' "
        f"role='button' aria-label='{name}: pick a pixel'>"
        f"<img src='{data_url(tile.picture)}' alt='{name}' draggable='false'>"
        f"<figcaption><b>{name}</b><span>{escape(tile.note)}</span></figcaption></figure>"
    )
