"""What a head that is running on this thread wants of the base model below it, and what that gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# (the first token only, values at padded positions too)
EVERYTHING = (False, False)

_wanted = threading.local()


@contextmanager
def wanting(handle: int, first_token: bool, all_positions: bool) -> Iterator[None]:
    """Inside the block, this thread's calls of the base model `handle` are for a head that wants just that."""
    outer = getattr(_wanted, "now", (-1, EVERYTHING))
    _wanted.now = (handle, (first_token, all_positions))
    try:
        yield
    finally:
        _wanted.now = outer


def wanted_of(handle: int) -> tuple[bool, bool]:
    """What the head that is calling, if any, reads of the base model `handle`."""
    of, wanted = getattr(_wanted, "now", (-1, EVERYTHING))
    return wanted if of == handle else EVERYTHING


@contextmanager
def noted() -> Iterator[dict[int, str | None]]:
    """By handle, of the base models called inside the block on this thread: why not the kernels, or None."""
    notes: dict[int, str | None] = {}
    _wanted.notes = notes
    try:
        yield notes
    finally:
        del _wanted.notes


def note(handle: int, reason: str | None) -> None:
    notes = getattr(_wanted, "notes", None)
    if notes is not None:
        notes[handle] = reason


def hidden_and_pooled(outputs: Any) -> tuple[Any, Any]:
    """The last hidden state and the pooled output, None without a pooler, out of a base model's tuple or outputs."""
    if isinstance(outputs, tuple):
        return outputs[0], outputs[1] if len(outputs) > 1 else None
    return outputs.last_hidden_state, outputs.pooler_output
