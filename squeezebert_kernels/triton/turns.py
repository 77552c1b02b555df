"""Who may touch a model's memory, and when: users on any stream and thread follow each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch


class Turns:
    """Orders what is queued on one model's memory: converted weights, the buffers of graphs, graphs themselves.

    Whoever writes or reads it does so inside `next`. The current stream then first waits, on the device, for what the
    turn before queued, on whatever stream that was; the host does not wait. So weights are complete before the first
    request reads them, requests have read them before new values are written, and no request meets another one's rows.

    Not for use while the current stream is being captured: a graph cannot wait for what happened before it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._last: Any = None  # the event behind the last turn

    @contextmanager
    def next(self) -> Iterator[None]:
        """Inside, the thread has the memory to itself, and its current stream comes after the turns before."""
        with self._lock, _on(self._device):
            stream = _current_stream(self._device)
            if stream is not None and self._last is not None:
                stream.wait_event(self._last)
            try:
                yield
            finally:
                if stream is not None:
                    self._last = stream.record_event()

    def wait(self) -> None:
        """The host waits for the last turn: from then on nothing uses the memory, and it may be given back. (The
        allocator hands it out again in the order of the stream that it came from, which may be another one.)"""
        if self._last is not None:
            self._last.synchronize()


def _on(device: torch.device) -> Any:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _current_stream(device: torch.device) -> Any:
    """None in Triton's interpreter, in tests."""
    return torch.cuda.current_stream(device) if device.type == "cuda" else None
