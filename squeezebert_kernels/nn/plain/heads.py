"""The five task heads, with Hugging Face's parameter names, losses and forward arguments."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import check, check_broadcasts, check_tensor
from ..activations import ACTIVATIONS
from ..config import SqueezeBertConfig
from ..outputs import LogitsOutput, QuestionAnsweringOutput
from .model import SqueezeBertModel, initialize_weights


class SqueezeBertPredictionHeadTransform(nn.Module):
    """LayerNorm(act(dense(x))), before the vocabulary's scores: [..., C] -> [..., C]."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.act = ACTIVATIONS[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.LayerNorm(self.act(self.dense(hidden_states)))


class SqueezeBertLMPredictionHead(nn.Module):
    """A score for every word of the vocabulary: [..., C] -> [..., vocab_size].

    `bias` is a second name of `decoder.bias`, as Hugging Face has it; `tie_word_embeddings` makes them one parameter.
    """

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.transform = SqueezeBertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.decoder(self.transform(hidden_states))


class SqueezeBertOnlyMLMHead(nn.Module):
    """Holds `predictions`, for the sake of the parameters' names."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.predictions = SqueezeBertLMPredictionHead(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.predictions(hidden_states)


class SqueezeBertForMaskedLM(nn.Module):
    """Predicts the word at every position."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = SqueezeBertModel(config)
        self.cls = SqueezeBertOnlyMLMHead(config)
        initialize_weights(self.cls, config)
        if config.tie_word_embeddings:
            predictions = self.cls.predictions
            predictions.decoder.weight = self.transformer.embeddings.word_embeddings.weight
            predictions.decoder.bias = predictions.bias

    def forward(self, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> LogitsOutput:
        """Other arguments as SqueezeBertModel. labels: ids [N, S], -100 where no loss is wanted. logits: [N, S, V]."""
        output = self.transformer(*args, **kwargs)
        logits = self.cls(output.last_hidden_state)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return LogitsOutput(logits=logits, loss=loss, hidden_states=output.hidden_states, attentions=output.attentions)


class _Classifier(nn.Module):
    """What three heads share: the model, dropout and one linear layer, initialized."""

    def __init__(self, config: SqueezeBertConfig, labels: int) -> None:
        super().__init__()
        self.config = config
        self.transformer = SqueezeBertModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, labels)
        initialize_weights(self.classifier, config)


class SqueezeBertForSequenceClassification(_Classifier):
    """Classifies (or, with one label, regresses) whole sequences."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config, config.num_labels)

    def forward(self, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> LogitsOutput:
        """Other arguments as SqueezeBertModel. logits: [N, num_labels].

        labels: what `problem_type` takes. Class indices [N] (single_label_classification), or floating [N, num_labels]
        (regression, multi_label_classification; [N] for one label). A problem_type of None is deduced: regression for
        one label, else by whether the labels are integers.
        """
        output = self.transformer(*args, **kwargs)
        logits = self.classifier(self.dropout(output.pooler_output))
        loss = None if labels is None else self._loss(logits, labels)
        return LogitsOutput(logits=logits, loss=loss, hidden_states=output.hidden_states, attentions=output.attentions)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        problem_type = self.config.problem_type
        if problem_type is None:
            if self.config.num_labels == 1:
                problem_type = "regression"
            elif labels.dtype in (torch.long, torch.int):
                problem_type = "single_label_classification"
            else:
                problem_type = "multi_label_classification"
        if problem_type == "regression":
            labels = labels.reshape(logits.shape) if self.config.num_labels == 1 else labels
            return F.mse_loss(logits, labels)
        if problem_type == "single_label_classification":
            return F.cross_entropy(logits, labels.flatten())
        return F.binary_cross_entropy_with_logits(logits, labels)


class SqueezeBertForMultipleChoice(_Classifier):
    """Scores several candidate sequences against each other."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config, 1)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> LogitsOutput:
        """Arguments as SqueezeBertModel, with a dimension of choices after the batch: input_ids [N, choices, S].

        Masks and ids may lack leading dimensions: [S] serves every choice. labels: the right choice of each, [N].
        logits: [N, choices]. hidden_states and attentions have the N * choices sequences as their batch.
        """
        given = input_ids if input_ids is not None else inputs_embeds
        if given is None:
            raise ValueError("input_ids, inputs_embeds: expected exactly one of them, got neither")
        name, per_token = ("input_ids", 0) if input_ids is not None else ("inputs_embeds", 1)
        check_tensor(name, given)
        check(given.dim() == 3 + per_token, f"{name}: expected a dimension of choices, got shape {list(given.shape)}")
        shape = given.shape[:3]
        ids = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids}
        for key, value in ids.items():
            if value is not None:
                check_tensor(key, value)
                check_broadcasts(key, value, shape)
                kwargs[key] = value.expand(shape).flatten(0, 1)
        for key, value in (("input_ids", input_ids), ("inputs_embeds", inputs_embeds)):
            kwargs[key] = None if value is None else value.flatten(0, 1)
        output = self.transformer(**kwargs)
        logits = self.classifier(self.dropout(output.pooler_output)).reshape(given.shape[:2])
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return LogitsOutput(logits=logits, loss=loss, hidden_states=output.hidden_states, attentions=output.attentions)


class SqueezeBertForTokenClassification(_Classifier):
    """Classifies every token."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config, config.num_labels)

    def forward(self, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> LogitsOutput:
        """Other arguments as SqueezeBertModel. labels: [N, S], -100 where no loss is wanted. logits: [N, S, labels]."""
        output = self.transformer(*args, **kwargs)
        logits = self.classifier(self.dropout(output.last_hidden_state))
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return LogitsOutput(logits=logits, loss=loss, hidden_states=output.hidden_states, attentions=output.attentions)


class SqueezeBertForQuestionAnswering(nn.Module):
    """Scores every token as the first and as the last of the answer."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        check(config.num_labels == 2, f"num_labels: expected 2, a start and an end score, got {config.num_labels}")
        self.config = config
        self.transformer = SqueezeBertModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        initialize_weights(self.qa_outputs, config)

    def forward(
        self, *args: Any, start_positions: Tensor | None = None, end_positions: Tensor | None = None, **kwargs: Any
    ) -> QuestionAnsweringOutput:
        """Other arguments as SqueezeBertModel. positions: token indices [N] or [N, 1]; one past the end is ignored."""
        output = self.transformer(*args, **kwargs)
        start_logits, end_logits = self.qa_outputs(output.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (_position_loss(start_logits, start_positions) + _position_loss(end_logits, end_positions)) / 2
        return QuestionAnsweringOutput(
            start_logits=start_logits,
            end_logits=end_logits,
            loss=loss,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


def _position_loss(logits: Tensor, positions: Tensor) -> Tensor:
    """Cross-entropy over the tokens, [N, S] against [N]; a position of S or more lies outside the text: ignored."""
    tokens = logits.shape[1]
    return F.cross_entropy(logits, positions.flatten().clamp(0, tokens), ignore_index=tokens)
