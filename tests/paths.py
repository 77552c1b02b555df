"""Which path an optimized model took: the kernels, or its original forward."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from squeezebert_kernels.integration.binding import Binding
from squeezebert_kernels.integration.classes import state_of

_LOGGER = logging.getLogger("squeezebert_kernels")


@contextmanager
def _recorded() -> Iterator[tuple[list[str], list[Any]]]:
    """Why calls inside the block took the original path, and the results of those that the kernels computed."""
    reasons: list[str] = []
    computed: list[Any] = []
    handler = logging.Handler()
    handler.emit = lambda record: reasons.append(record.getMessage())  # type: ignore[method-assign]
    level = _LOGGER.level
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.DEBUG)
    compute = Binding.compute

    def counted(*args: Any) -> Any:
        computed.append(compute(*args))
        return computed[-1]

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Binding, "compute", counted)
            yield reasons, computed
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)


@contextmanager
def kernels() -> Iterator[None]:
    """Something inside the block runs on the kernels, and nothing of an optimized model on its original path."""
    with _recorded() as (reasons, computed):
        yield
    assert not reasons
    assert computed


@contextmanager
def computed() -> Iterator[list[Any]]:
    """The hidden states and pooled outputs that the kernels compute inside the block."""
    with _recorded() as (_, results):
        yield results


@contextmanager
def original(reason: str) -> Iterator[None]:
    """Something inside the block takes the original path, for a reason that contains `reason`."""
    with _recorded() as (reasons, _):
        yield
    assert any(reason in message for message in reasons), reasons


@contextmanager
def restored() -> Iterator[None]:
    """No optimized model is called inside the block."""
    with _recorded() as (reasons, computed):
        yield
    assert not reasons
    assert not computed


def binding_of(model: Any) -> Any:
    """What an optimized base model is bound to, packed as of now."""
    return state_of(model).bind(model)
