"""`predict`: a checkpoint, a task and a text in; lines to print out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from torch import Tensor

BEST = 5
LONGEST_ANSWER = 30


def predict(model: str, task: str, text: str, question: str | None = None) -> Iterator[str]:
    """Yields printable predictions, best first where there is a choice.

    model: a folder or Hub id with the checkpoint of a SqueezeBERT that has the task's head.

    Raises ValueError when the text or the question holds no token or both are longer than the model's positions, when a
    question is missing or not wanted, when fill-mask finds no [MASK], and for a tokenizer that is not the model's.
    """
    import torch

    import squeezebert_kernels
    from squeezebert_kernels.nn.tokenizer import load_tokenizer

    if (question is not None) != (task == "question-answering"):
        raise ValueError(f"question: expected one for question-answering and only there, got {question!r} for {task}")
    class_name, describe = TASKS[task]
    network = getattr(squeezebert_kernels, class_name).from_pretrained(model)
    tokenizer = load_tokenizer(model)
    encoding = tokenizer.encode(text) if question is None else tokenizer.encode(question, text)
    given = {"text": text} if question is None else {"question": question, "text": text}
    for sequence, (name, words) in enumerate(given.items()):
        if sequence not in encoding.sequence_ids:
            raise ValueError(f"{name}: expected at least one word, got none in {words!r}")
    _check_ids(encoding, network.config)
    positions = network.config.max_position_embeddings
    if len(encoding.ids) > positions:
        raise ValueError(f"text: expected at most {positions} tokens (the model's positions), got {len(encoding.ids)}")
    with torch.inference_mode():
        output = network(
            input_ids=torch.tensor([encoding.ids]),
            attention_mask=torch.tensor([encoding.attention_mask]),
            token_type_ids=torch.tensor([encoding.type_ids]),
        )
    yield from describe(output, encoding, tokenizer, text, network.config)


def _check_ids(encoding: Encoding, config: Any) -> None:
    """The model has a row for every id that the tokenizer gave."""
    largest = max(encoding.ids)
    if largest >= config.vocab_size:
        raise ValueError(
            f"model: expected a tokenizer with ids below vocab_size {config.vocab_size}, got {largest} for "
            f"{encoding.tokens[encoding.ids.index(largest)]!r}"
        )
    if max(encoding.type_ids) >= config.type_vocab_size:
        raise ValueError(
            f"model: expected type_vocab_size of at least 2 for a question and a text, got {config.type_vocab_size}"
        )


def fill_mask(output: Any, encoding: Encoding, tokenizer: Tokenizer, text: str, config: Any) -> Iterator[str]:
    """The likeliest pieces for each [MASK], among those that the tokenizer has: a model may have rows to spare."""
    masks = [index for index, piece in enumerate(encoding.tokens) if piece == "[MASK]"]
    if not masks:
        raise ValueError(f"text: expected [MASK] in it for fill-mask, got {text!r}")
    known = sorted(id for id in tokenizer.get_vocab().values() if id < config.vocab_size)
    for number, index in enumerate(masks, start=1):
        values, places = output.logits[0, index, known].softmax(-1).topk(min(BEST, len(known)))
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            yield f"[MASK] {number}  {value:7.2%}  {tokenizer.id_to_token(known[place])}"


def text_classification(output: Any, encoding: Encoding, tokenizer: Tokenizer, text: str, config: Any) -> Iterator[str]:
    """Every label with its probability."""
    probabilities = output.logits[0].softmax(-1)
    for index in probabilities.argsort(descending=True).tolist():
        yield f"{probabilities[index].item():7.2%}  {_label(config, index)}"


def token_classification(
    output: Any, encoding: Encoding, tokenizer: Tokenizer, text: str, config: Any
) -> Iterator[str]:
    """The likeliest label of every piece of the text."""
    probabilities = output.logits[0].softmax(-1)
    for piece, special, row in zip(encoding.tokens, encoding.special_tokens_mask, probabilities, strict=True):
        if not special:
            value, index = row.max(-1)
            yield f"{value.item():7.2%}  {_label(config, int(index)):<12}  {piece}"


def question_answering(output: Any, encoding: Encoding, tokenizer: Tokenizer, text: str, config: Any) -> Iterator[str]:
    """The likeliest spans of the text, of at most LONGEST_ANSWER pieces."""
    in_text = [index for index, sequence in enumerate(encoding.sequence_ids) if sequence == 1]
    first, last = in_text[0], in_text[-1] + 1
    scores = _span_scores(output.start_logits[0, first:last], output.end_logits[0, first:last])
    values, places = scores.flatten().softmax(-1).topk(min(BEST, len(in_text)))
    for value, place in zip(values.tolist(), places.tolist(), strict=True):
        start, end = divmod(place, len(in_text))
        answer = text[encoding.offsets[first + start][0] : encoding.offsets[first + end][1]]
        yield f"{value:7.2%}  {answer}"


def _span_scores(start: Tensor, end: Tensor) -> Tensor:
    """start[i] + end[j] for i <= j < i + LONGEST_ANSWER, else -inf: [S], [S] -> [S, S]."""
    scores = start[:, None] + end[None, :]
    allowed = scores.new_ones(scores.shape).bool().triu().tril(LONGEST_ANSWER - 1)
    return scores.masked_fill(~allowed, float("-inf"))


def _label(config: Any, index: int) -> str:
    names = getattr(config, "id2label", None) or {}
    return names.get(index, f"LABEL_{index}")


TASKS: dict[str, tuple[str, Callable[..., Iterator[str]]]] = {
    "fill-mask": ("SqueezeBertForMaskedLM", fill_mask),
    "text-classification": ("SqueezeBertForSequenceClassification", text_classification),
    "token-classification": ("SqueezeBertForTokenClassification", token_classification),
    "question-answering": ("SqueezeBertForQuestionAnswering", question_answering),
}
