"""The app as `python -m app` starts it, with runs that can be held between two predicted frames.

A test that wants to see what the page shows halfway through a run cannot race it: it says how many
frames may pass, in a file that $EMERGE3D_GATE names, and the run waits for more.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app import __main__
from app.handlers import running
from explorer.look import FramePredicted, LookRequest, Stage

GATE = Path(os.environ["EMERGE3D_GATE"])
look = running.look


def held(
    request: LookRequest, *, should_stop: Callable[[], bool], **named: object
) -> Iterator[Stage]:
    """The stages of a look; a frame waits while it is beyond the number in the gate's file."""
    frames = 0
    for stage in look(request, should_stop=should_stop, **named):  # type: ignore[arg-type]
        if isinstance(stage, FramePredicted):
            frames += 1
            while GATE.exists() and frames > int(GATE.read_text() or 0) and not should_stop():
                time.sleep(0.02)
        yield stage


if __name__ == "__main__":
    running.look = held
    sys.exit(__main__.main())
