"""References made up for a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from explorer import references
from explorer.errors import NoReconstruction
from explorer.references import Entry


def offer(monkeypatch: pytest.MonkeyPatch, name: str, reference: Callable[..., Any]) -> None:
    references.names()  # let the shipped ones register first
    entry = Entry(name, reference, None, None, None)
    monkeypatch.setitem(references._references, name, entry)


def no_parallax(clip: object, context: object) -> None:
    raise NoReconstruction("too little parallax")
