"""Gradio, imported once, without its analytics, its editor stubs and its lines on stdout.

Gradio parses the source of all its components at every import to keep `.pyi` files for editors up
to date; that is half of its import time. It skips a class whose source file cannot be found, which
is what it is told here, for that one caller and during this import only.

Its routes print a line for every file of the viewer that a browser asks for: those go to the log.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("DO_NOT_TRACK", "1")
# Uploads and thumbnails lie in a folder of this process and go with it. Gradio's own is one for all
# users and servers of a machine: who stops last leaves their videos there, who cleans up first
# breaks the other's pictures.
_files = tempfile.TemporaryDirectory(prefix="emerge3d-page-")
os.environ["GRADIO_TEMP_DIR"] = _files.name


@contextmanager
def _without_stub_writing() -> Iterator[None]:
    original = inspect.getfile

    def getfile(thing: Any) -> str:
        if sys._getframe(1).f_code.co_name == "create_or_modify_pyi":
            raise OSError("editor stubs are not wanted here")
        return original(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = original


with _without_stub_writing():
    import gradio as gr
    import gradio_rerun
    from gradio import routes
    from gradio_rerun import events as rerun_events

log = logging.getLogger(__name__)


def _to_log(*values: object, **_: Any) -> None:
    log.debug("%s", " ".join(map(str, values)))


routes.print = _to_log  # type: ignore[attr-defined]  # in that module only

__all__ = ["gr", "gradio_rerun", "rerun_events"]
