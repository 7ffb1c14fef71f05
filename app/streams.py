"""Gradio keeps all bytes of a streaming output until the tab closes; this lets go of ended ones."""

from __future__ import annotations

from typing import Any


def drop_ended(page: Any, session_hash: str) -> int:
    """Forget the streams of a page's earlier runs, and say how many there were.

    `pending_streams` is private to Gradio, so anything unexpected there leaves it alone: the price
    is memory, not function.
    """
    runs = getattr(page, "pending_streams", {}).get(session_hash)
    if not isinstance(runs, dict):
        return 0
    ended = [
        run
        for run, streams in list(runs.items())
        if isinstance(streams, dict)
        and all(getattr(stream, "ended", False) for stream in streams.values())
    ]
    for run in ended:
        runs.pop(run, None)
    return len(ended)
