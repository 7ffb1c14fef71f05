"""`emerge3d app`: the page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class App:
    """Start the page on this machine."""

    port: int = 7860
    """Of 127.0.0.1; nobody else can connect."""

    def run(self) -> int:
        """Serve until interrupted."""
        from app.__main__ import main

        return int(main(["--port", str(self.port)]) or 0)
