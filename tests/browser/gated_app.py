"""The app as `python -m app` starts it, watched, with runs that can be held halfway.

A test that wants to see what the page shows halfway through a run cannot race it: it says how many
frames may pass, in a file that $EMERGE3D_GATE names, and the run waits for more.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import watched

from app import __main__
from app.handlers import running
from explorer.look import FramePredicted, LookRequest, Stage

look = running.look


def held(
    request: LookRequest, *, should_stop: Callable[[], bool], **named: object
) -> Iterator[Stage]:
    """The stages of a look; a frame waits while it is beyond the number in the gate's file."""
    gate, frames = Path(os.environ["EMERGE3D_GATE"]), 0
    for stage in look(request, should_stop=should_stop, **named):  # type: ignore[arg-type]
        if isinstance(stage, FramePredicted):
            frames += 1
            while frames > _allowed(gate) and not should_stop():
                time.sleep(0.02)
        yield stage


def _allowed(gate: Path) -> float:
    try:
        return int(gate.read_text())
    except FileNotFoundError:
        return math.inf


if __name__ == "__main__":
    watched.watch()
    running.look = held
    sys.exit(__main__.main())
