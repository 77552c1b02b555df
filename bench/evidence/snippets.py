"""Movie-review snippets with mean human ratings from -4 to 4, in two classes and five folds.

Source: Hutto, Gilbert, VADER, ICWSM 2014; in the source archive of the PyPI package vaderSentiment (MIT).
"""

from __future__ import annotations

import io
import random
import tarfile
from dataclasses import dataclass

from .sources import VADER, fetch

INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
# Ratings beyond it on either side are a class; those between are nobody's, and left out.
THRESHOLD = 0.5
FOLDS = 5
SEED = 0


@dataclass(frozen=True)
class Snippet:
    """A sentence or two of a review; label 1 where its readers' mean rating is above THRESHOLD, 0 below minus that."""

    text: str
    label: int


@dataclass(frozen=True)
class Fold:
    """Every snippet is in the test part of one fold, and in the training part of the others."""

    train: tuple[Snippet, ...]
    test: tuple[Snippet, ...]


def load() -> list[Snippet]:
    """The snippets of the cached or downloaded package, in its order. Raises what `sources.fetch` raises."""
    with tarfile.open(fetch(VADER)) as archive:
        inner = archive.extractfile(f"{VADER.archive.removesuffix('.tar.gz')}/{INNER}")
        assert inner is not None  # the checksum says that it is a file
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as data:
            truth = data.extractfile(MEMBER)
            assert truth is not None
            return parse(truth.read().decode("utf-8"))


def parse(table: str) -> list[Snippet]:
    """Lines `number TAB mean rating TAB text`. Raises ValueError, with the line's number, for any other."""
    snippets = []
    for number, line in enumerate(table.splitlines(), 1):
        try:
            _, rating, text = line.split("\t")
            value = float(rating)
        except ValueError:
            raise ValueError(f"line {number}: expected number, rating and text between tabs, got {line!r}") from None
        if abs(value) > THRESHOLD:
            snippets.append(Snippet(" ".join(text.split()), int(value > 0)))
    return snippets


def folds(snippets: list[Snippet], count: int = FOLDS, seed: int = SEED) -> list[Fold]:
    """The snippets shuffled by `seed`, in `count` test parts as even as can be; equal texts are in one part."""
    texts = sorted({snippet.text for snippet in snippets})
    random.Random(seed).shuffle(texts)
    part = {text: index % count for index, text in enumerate(texts)}
    return [
        Fold(
            tuple(snippet for snippet in snippets if part[snippet.text] != index),
            tuple(snippet for snippet in snippets if part[snippet.text] == index),
        )
        for index in range(count)
    ]
