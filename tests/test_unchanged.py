"""_native.unchanged: whether Python objects are still where they were, and what they were."""

from __future__ import annotations

from typing import Any

import pytest

from squeezebert_kernels._native import unchanged


class Thing:
    def method(self) -> None: ...


def test_places() -> None:
    """Items of dictionaries, attributes of anything else; the very object, and None for nothing."""
    value, thing = [1], Thing()
    owner: dict[str, Any] = {"a": value}
    method = Thing.method
    assert unchanged((owner, "a", value, owner, "b", None, Thing, "method", method, thing, "nothing", None), ())
    assert not unchanged((owner, "a", [1]), ())
    assert not unchanged((owner, "a", value, owner, "b", value), ())
    owner["b"] = None
    assert unchanged((owner, "b", None), ())
    owner["a"] = [1]
    assert not unchanged((owner, "a", value), ())
    assert not unchanged((Thing, "method", None), ())
    thing.nothing = 1  # type: ignore[attr-defined]
    assert not unchanged((thing, "nothing", None), ())


def test_objects() -> None:
    """The very class, and the number of items."""
    thing, owner = Thing(), {"a": 1}
    records = (thing, Thing, vars(thing), 0, owner, dict, owner, 1)
    assert unchanged((), records)
    assert not unchanged((), (thing, object, owner, 1))
    owner["b"] = 2
    assert not unchanged((), records)
    del owner["b"]
    assert unchanged((), records)
    thing.__class__ = type("Other", (Thing,), {})
    assert not unchanged((), records)


def test_nothing() -> None:
    assert unchanged((), ())


def test_errors() -> None:
    class Failing:
        @property
        def value(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ValueError, match=r"places: expected 3 fields each, got 4"):
        unchanged((1, 2, 3, 4), ())
    with pytest.raises(ValueError, match=r"objects: expected 4 fields each, got 3"):
        unchanged((), (1, 2, 3))
    with pytest.raises(TypeError, match=r"objects: expected a dictionary as every third field"):
        unchanged((), (1, int, [], 0))
    with pytest.raises(TypeError, match="unhashable"):
        unchanged(({}, [], None), ())
    with pytest.raises(ZeroDivisionError):
        unchanged((Failing(), "value", None), ())
