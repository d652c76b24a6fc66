"""Callbacks that are connected, and later disconnected, together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def connected(*pairs: tuple[Any, Callable[..., object]], **options: object) -> Callable[[], None]:
    """Connect callbacks, given as (signal, callback); return a function that disconnects them.

    options : for the `connect` of every signal.
    """
    left = [*pairs]
    for signal, callback in left:
        signal.connect(callback, **options)

    def disconnect() -> None:
        while left:
            signal, callback = left.pop()
            signal.disconnect(callback)

    return disconnect
