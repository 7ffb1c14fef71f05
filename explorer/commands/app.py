"""`emerge3d app`: the page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class App:
    """Start the page on this machine."""

    port: int = 7860
    """0 takes a free one."""
    host: str = "127.0.0.1"
    """Another address lets other machines connect; the page has no password."""
    allowed_host: tuple[str, ...] = ()
    """Further host names that the page is asked for under, e.g. of this machine."""

    def run(self) -> int:
        """Serve until interrupted."""
        from app.__main__ import main

        words = ["--port", str(self.port), "--host", self.host]
        for name in self.allowed_host:
            words += ["--allowed-host", name]
        return main(words)
