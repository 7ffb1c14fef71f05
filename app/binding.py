"""Handlers speak of components by name; this gives Gradio what it expects."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app._gradio import gr


def bound(handler: Callable[..., Any], components: Mapping[str, Any]) -> Callable[..., Any]:
    """The handler with its named updates turned into updates of components.

    Names without a component are an error of the program and raise KeyError. Nothing to update
    becomes `gr.skip()`: for the viewer, None would open another stream. Dictionaries are copied:
    Gradio takes the value out of each that it is given, and a handler may give one twice.
    """

    def translated(update: Mapping[str, Any] | None) -> Any:
        if not update:
            return gr.skip()
        return {
            components[name]: {**value} if isinstance(value, dict) else value
            for name, value in update.items()
        }

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            for update in handler(*args, **kwargs):
                yield translated(update)

        return stream

    @functools.wraps(handler)
    def once(*args: Any, **kwargs: Any) -> Any:
        return translated(handler(*args, **kwargs))

    return once
