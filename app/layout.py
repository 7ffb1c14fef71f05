"""The page: input and cell on the left, the viewer beside it, the closer looks below."""

from __future__ import annotations

from typing import Any

from app import (
    cell,
    controls,
    film,
    gallery,
    legend,
    links,
    map_panel,
    metrics_panel,
    progress,
    window,
)
from app._gradio import gr, gradio_rerun
from app.events import Events
from app.handlers import Handlers
from app.state import Session
from app.warmup import default_card
from app.window import MAX_STRIDE
from explorer import references
from explorer.backbones import registry

VIEWER_HEIGHT = 560
"""Where the style sheet, which fits it to the window, does not apply."""
DELETE_CACHE = (3600, 24 * 3600)
"""Look every hour, delete files older than a day (seconds)."""

CLAIM = "How much 3D is inside a video model? Pick a layer and a noise level, and look at it."

INTRO = """
<ol>
  <li><b>A clip</b>Frames of a video, shipped with exact geometry or your own.</li>
  <li><b>Noise</b>Sigma says how much of it is hidden under noise.</li>
  <li><b>A layer</b>A frozen video model reads it; its features are taken after one block.</li>
  <li><b>A probe</b>A small network turns those features into depth, points and cameras.</li>
  <li><b>Look</b>Prediction beside reference, in 3D, and how well pixels find each other.</li>
</ol>
"""

READY_JS = """
const ask = async () => {
  try {
    const state = await (await fetch('ready')).json();
    const pill = element.querySelector('.pill');
    if (state.ready) {
      pill.className = state.problem ? 'pill problem' : 'pill ready';
      pill.textContent = state.problem || 'ready · ' + state.device;
      return;
    }
  } catch { /* the server is starting or gone; ask again */ }
  setTimeout(ask, 700);
};
ask();
"""


def build(handlers: Handlers) -> gr.Blocks:
    """The whole page, with its events."""
    first = default_card()
    layer, sigma = first.default_cell
    source = next(iter(gallery.shipped()), None)
    chosen = window.suggested(source, first) if source else window.Window(0, 1, 17)
    parts: dict[str, Any] = {}
    with gr.Blocks(title="Emerge3D", fill_width=True, delete_cache=DELETE_CACHE) as page:
        session = gr.State(Session(source), delete_callback=_forget)
        _header(parts)
        with gr.Row(elem_id="main"):
            with gr.Column(scale=3, min_width=330, elem_id="left"):
                _clip_controls(parts, source, chosen, first)
                _cell_controls(parts, first)
            with gr.Column(scale=9, min_width=640, elem_id="centre"):
                with gr.Row(elem_id="runbar"):
                    parts["run"] = gr.Button(
                        "Run", variant="primary", scale=0, min_width=110, elem_id="run"
                    )
                    parts["stop"] = gr.Button(
                        "Stop",
                        variant="stop",
                        interactive=False,
                        scale=0,
                        min_width=90,
                        elem_id="stop",
                    )
                    with gr.Column(elem_id="said", min_width=200):
                        parts["status"] = gr.HTML(progress.idle(), elem_id="status")
                        parts["stale"] = gr.HTML("", elem_id="stale")
                with gr.Column(elem_id="stage"):
                    parts["intro"] = gr.HTML(INTRO, elem_id="intro")
                    parts["viewer"] = gradio_rerun.Rerun(
                        streaming=True,
                        height=VIEWER_HEIGHT,
                        container=False,
                        elem_id="viewer",
                        panel_states={
                            "top": "hidden",
                            "blueprint": "hidden",
                            "selection": "hidden",
                            "time": "collapsed",
                        },
                    )
                parts["legend"] = gr.HTML(legend.html(), visible=False, elem_id="legend")
                _tabs(parts, first.id, layer, sigma)
        Events(page, parts, session, handlers).connect()
    return page


def _forget(session: Session) -> None:
    session.stop()


def _header(parts: dict[str, Any]) -> None:
    with gr.Row(elem_id="header"):
        gr.HTML(
            f"<h1>Emerge3D</h1><p>{CLAIM}</p>"
            f"<a href='{links.PAPER}' target='_blank' rel='noreferrer'>the method's paper</a>",
            elem_id="claim",
        )
        parts["ready"] = gr.HTML(
            "<span class='pill' role='status'>warming up</span>",
            js_on_load=READY_JS,
            elem_id="ready",
        )


def _clip_controls(parts: dict[str, Any], source: Any, chosen: window.Window, first: Any) -> None:
    # Not left to the load event: a page reads its answer when it has compiled the viewer, which
    # takes ten seconds.
    parts["gallery"] = gr.Gallery(
        gallery.pictures(),
        selected_index=gallery.position(source),
        label="Shipped clips",
        show_label=False,
        columns=4,
        allow_preview=False,
        object_fit="cover",
        interactive=False,
        buttons=[],
        elem_id="gallery",
    )
    parts["upload"] = gr.UploadButton(
        "Upload a video of your own (mp4, mov)",
        file_types=[".mp4", ".mov"],
        size="sm",
        elem_id="upload",
    )
    parts["preview"] = gr.HTML(window.preview(source, chosen), elem_id="preview")
    frames = source.info.frames if source else 17
    with gr.Accordion("Window: which frames", open=False, elem_id="window"):
        parts["start"] = gr.Slider(
            0,
            max(frames - 1, 1),
            value=chosen.start,
            step=1,
            label="First frame",
            buttons=[],
            elem_id="start",
        )
        parts["stride"] = gr.Slider(
            1,
            MAX_STRIDE,
            value=chosen.stride,
            step=1,
            label="Stride",
            info="Take every n-th frame.",
            buttons=[],
            elem_id="stride",
        )
        parts["count"] = gr.Dropdown(
            window.counts(first, frames),
            value=chosen.count,
            label="Frames",
            info="As many as this backbone takes in one pass.",
            elem_id="count",
        )


def _cell_controls(parts: dict[str, Any], first: Any) -> None:
    layer, sigma = first.default_cell
    named = list(references.offered())
    with gr.Row(elem_id="who"):
        parts["backbone"] = gr.Dropdown(
            [
                (f"{card.id} (control)" if card.kind == "control" else card.id, card.id)
                for card in registry.here()
            ],
            value=first.id,
            label="Backbone",
            min_width=120,
            elem_id="backbone",
        )
        parts["reference"] = gr.Dropdown(
            [*((references.label(name), name) for name in named), "none"],
            value=named[0] if named else "none",
            label="Reference",
            min_width=120,
            elem_id="reference",
        )
    with gr.Accordion("Second judge", open=False, elem_id="second"):
        parts["judge"] = gr.Dropdown(
            ["none", *((references.label(name), name) for name in named)],
            value="none",
            show_label=False,
            container=False,
            elem_id="judge",
        )
        gr.HTML(
            "<p class='note'>Where another reference disagrees, the error map is masked, and "
            "errors are given without those pixels too.</p>"
        )
    parts["about"] = gr.HTML(cell.about(first.id), elem_id="about")
    foreign = cell.found_plugins()
    if foreign:
        gr.HTML(foreign, elem_id="plugins")
    parts["layer"] = gr.Slider(
        0,
        controls.last_layer(),
        value=layer,
        step=1,
        label="Layer",
        info="Block whose output is read, from 0.",
        buttons=[],
        elem_id="layer",
    )
    parts["sigma"] = gr.Slider(
        0.0,
        1.0,
        value=sigma,
        step=0.01,
        label="Noise: sigma",
        info="0 is the clean video, 1 is noise alone.",
        buttons=[],
        elem_id="sigma",
    )
    parts["cell"] = gr.HTML(cell.note(first.id, layer, sigma), elem_id="cell")


def _tabs(parts: dict[str, Any], backbone: str, layer: int, sigma: float) -> None:
    with gr.Tabs(elem_id="tabs"):
        with gr.Tab("Correspondence", id="correspondence"):
            parts["film"] = film.component()
        with gr.Tab("Metrics", id="metrics"):
            parts["metrics"] = gr.HTML(metrics_panel.EMPTY, elem_id="metrics")
        with gr.Tab("Layer × sigma map", id="map"):
            parts["metric"] = gr.Radio(
                map_panel.metrics(),
                value=map_panel.metrics()[0][1],
                label="Metric of the map",
                show_label=False,
                container=False,
                elem_id="metric",
            )
            parts["map"] = map_panel.component(
                map_panel.value(backbone, map_panel.metrics()[0][1], layer=layer, sigma=sigma)
            )
        with gr.Tab("Log", id="log"):
            gr.HTML(
                "<p class='note'>After a run: all that is known about it, as JSON, which "
                "<code>emerge3d look --json</code> prints too: metrics, seconds, versions, hashes."
                "</p>"
            )
            parts["log"] = gr.JSON(show_label=False, visible=False, elem_id="log")
        with gr.Tab("Export", id="export"):
            gr.HTML(
                "<p class='note'>After a run: the look that is shown, as files. The recording "
                "opens in the native Rerun viewer with <code>emerge3d view file.rrd</code> or "
                "<code>rerun file.rrd</code>; the summary is the JSON of the Log.</p>"
            )
            with gr.Row():
                for name, label in (("rrd", "recording (.rrd)"), ("json", "summary (.json)")):
                    parts[f"make_{name}"] = gr.Button(
                        f"Download the {label}", interactive=False, elem_id=f"make_{name}"
                    )
                    parts[name] = gr.DownloadButton(visible="hidden", elem_id=f"download_{name}")
            parts["link"] = gr.Markdown("", elem_id="link")
