"""`emerge3d view`: a recording in the native Rerun viewer."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from explorer.errors import EmergeError


@dataclass(frozen=True)
class View:
    """Open a recording (.rrd) in the native viewer."""

    recording: tyro.conf.Positional[Path]
    """A file written by `emerge3d look --out`."""

    def run(self) -> int:
        """Start the viewer and wait until it is closed.

        Raises:
            EmergeError: no such file, or no display to show it on.
        """
        if not self.recording.is_file():
            raise EmergeError(
                f"{self.recording} does not exist: write it with emerge3d look CLIP --out FILE.rrd"
            )
        if not has_display():
            raise EmergeError(
                "there is no display for the native viewer: copy "
                f"{self.recording.name} to a machine with a screen, or run the clip in the page "
                "(emerge3d app)"
            )
        command = [sys.executable, "-m", "rerun", str(self.recording)]
        return subprocess.run(command, check=False).returncode


def has_display() -> bool:
    """Whether a window can be opened; the viewer itself would wait and say little."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
