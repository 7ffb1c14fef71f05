"""How large an input may be. Checked from file sizes and headers, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from explorer.errors import ClipError


@dataclass(frozen=True)
class Limits:
    """Upper bounds on one input video or folder of images.

    Attributes:
        bytes: of the file (or of all images together), and of the decoded clip.
        pixels: of one source frame.
        seconds: length of the source video.
        frames: in the decoded clip.
        wall_seconds: time that indexing or decoding may take, against files built to hang.
    """

    bytes: int = 1 << 30
    pixels: int = 4096 * 2304
    seconds: float = 3600.0
    frames: int = 1024
    wall_seconds: float = 120.0

    def check_bytes(self, name: str, count: int) -> None:
        """Raises ClipError: the file or the decoded clip is too large."""
        if count > self.bytes:
            raise ClipError(
                f"{name} takes {count / 1e6:.0f} MB; at most {self.bytes / 1e6:.0f} MB are "
                "accepted: cut it to a shorter video, choose fewer frames or a smaller size"
            )

    def check_pixels(self, name: str, height: int, width: int) -> None:
        """Raises ClipError: a frame has no pixels or too many."""
        if height <= 0 or width <= 0:
            raise ClipError(f"{name} states no picture size: the file is damaged; export it again")
        if height * width > self.pixels:
            raise ClipError(
                f"{name} has frames of {width}x{height} pixels; at most "
                f"{self.pixels / 1e6:.1f} million pixels are accepted: scale it down first"
            )

    def check_seconds(self, name: str, seconds: float) -> None:
        """Raises ClipError: the source is too long."""
        if seconds > self.seconds:
            raise ClipError(
                f"{name} is {seconds:.0f} s long; at most {self.seconds:.0f} s are accepted: "
                "cut it to a shorter video"
            )

    def check_frames(self, name: str, count: int) -> None:
        """Raises ClipError: the window has too many frames."""
        if count > self.frames:
            raise ClipError(
                f"{count} frames of {name} are too many; at most {self.frames} are accepted: "
                "choose a smaller frame count or a larger stride"
            )
