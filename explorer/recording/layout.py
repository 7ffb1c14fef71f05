"""How the viewer lays a recorded look out."""

from __future__ import annotations

import rerun.blueprint as rrb

TIMELINE = "frame"
# One scale for all looks and both sides, so that colours compare between them.
ERROR_RANGE = (0.0, 0.5)
DEPTH_RANGE = (0.0, 2.0)  # 97 % of what the shipped clips show is nearer than 2


def blueprint() -> rrb.Blueprint:
    """Two 3D views with the same start pose above input, two depth views and the error."""
    accumulate = rrb.VisibleTimeRanges(
        timeline=TIMELINE,
        start=rrb.TimeRangeBoundary.infinite(),
        end=rrb.TimeRangeBoundary.cursor_relative(seq=0),
    )

    def world(name: str, origin: str) -> rrb.Spatial3DView:
        return rrb.Spatial3DView(
            name=name,
            origin=origin,
            contents=f"{origin}/**",
            time_ranges=accumulate,
            line_grid=rrb.LineGrid3D(visible=False),
            eye_controls=rrb.EyeControls3D(
                position=(-0.2, -0.4, -0.6), look_target=(0.0, 0.05, 0.9), eye_up=(0.0, -1.0, 0.0)
            ),
        )

    # Four panes share a row: a longer name would be cut on a screen of 1280 pixels.
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(world("Prediction", "/prediction"), world("Reference", "/reference")),
            rrb.Horizontal(
                rrb.Spatial2DView(name="Input", origin="/input"),
                rrb.Spatial2DView(name="Pred. depth", origin="/depth/prediction"),
                rrb.Spatial2DView(name="Ref. depth", origin="/depth/reference"),
                rrb.Spatial2DView(name=f"Error, 0 to {ERROR_RANGE[1]}", origin="/error"),
            ),
            row_shares=[5, 3],
        ),
        rrb.TimePanel(timeline=TIMELINE, state="collapsed", fps=8.0, play_state="following"),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
    )
