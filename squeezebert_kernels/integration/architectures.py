"""The implementations of the architecture that the fast path knows, and where each keeps its modules."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Family:
    """How one implementation of the architecture is laid out. Paths are dotted attribute names.

    modules: where its classes are defined. base: the class of its base model. classes: those of the modules below it
    whose forward the kernels compute; a subclass may compute anything, so only the very class is taken. layers: the
    path of the layers. linears, norms: in a layer, in the operators' order; the linears are of class `linear`. heads:
    what the number of heads is called, beside the query. activation: the function between FFN2 and FFN3, in a layer.
    first_token_heads read only the pooled output, token_heads one output per token. output: where the class of the base
    model's output is found. warns_about_padding: its forward warns of padding tokens without a mask.
    """

    modules: tuple[str, ...]
    base: str
    classes: str
    layers: str
    linears: tuple[str, ...]
    linear: str
    norms: tuple[str, str]
    heads: str
    activation: str
    first_token_heads: tuple[str, ...]
    token_heads: tuple[str, ...]
    output: tuple[str, str]
    warns_about_padding: bool = False

    def output_class(self) -> Any:
        module, name = self.output
        return getattr(import_module(module), name)

    def named(self, name: str) -> Any:
        """The class `name` of this family or of torch.nn; None where the family is not imported or does not have it."""
        for module in (*self.modules, "torch.nn"):
            if hasattr(sys.modules.get(module), name):
                return getattr(sys.modules[module], name)
        return None

    def computes(self, kind: type[nn.Module], names: tuple[str, ...]) -> bool:
        """`kind` is one of the classes `names`, or a subclass that leaves the forward as it is."""
        forward = kind.forward
        return any(getattr(self.named(name), "forward", None) is forward for name in names)

    def knows(self, kind: type[nn.Module]) -> bool:
        """`kind` is the very class of a module that the kernels compute."""
        return any(kind is self.named(name) for name in (*_COMMON, *self.classes.split()))


_COMMON = ("Dropout", "Embedding", "LayerNorm", "Linear", "ModuleList", "Tanh")
_SQUEEZEBERT: dict[str, Any] = {
    "base": "SqueezeBertModel",
    "layers": "encoder.layers",
    "linears": (
        "attention.query",
        "attention.key",
        "attention.value",
        "post_attention.conv1d",
        "intermediate.conv1d",
        "output.conv1d",
    ),
    "norms": ("post_attention.layernorm", "output.layernorm"),
    "activation": "intermediate.act",
    "first_token_heads": ("SqueezeBertForSequenceClassification", "SqueezeBertForMultipleChoice"),
    "token_heads": ("SqueezeBertForMaskedLM", "SqueezeBertForTokenClassification", "SqueezeBertForQuestionAnswering"),
}
_SQUEEZEBERT_CLASSES = (
    "SqueezeBertEmbeddings SqueezeBertEncoder SqueezeBertPooler SqueezeBertSelfAttention ConvDropoutLayerNorm "
    "ConvActivation"
)

FAMILIES = (
    Family(
        modules=("transformers.models.squeezebert.modeling_squeezebert",),
        classes=f"{_SQUEEZEBERT_CLASSES} SqueezeBertModule SqueezeBertLayerNorm Conv1d MatMulWrapper Softmax",
        linear="Conv1d",
        heads="num_attention_heads",
        output=("transformers.modeling_outputs", "BaseModelOutputWithPooling"),
        warns_about_padding=True,
        **_SQUEEZEBERT,
    ),
    Family(
        modules=("transformers.models.bert.modeling_bert",),
        base="BertModel",
        # In transformers 4 a class of its own calls scaled_dot_product_attention.
        classes="BertEmbeddings BertEncoder BertLayer BertAttention BertSelfAttention BertSdpaSelfAttention "
        "BertSelfOutput BertIntermediate BertOutput BertPooler",
        layers="encoder.layer",
        linears=(
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ),
        linear="Linear",
        norms=("attention.output.LayerNorm", "output.LayerNorm"),
        heads="num_attention_heads",
        activation="intermediate.intermediate_act_fn",
        first_token_heads=("BertForSequenceClassification", "BertForMultipleChoice", "BertForNextSentencePrediction"),
        token_heads=(
            "BertForMaskedLM",
            "BertForPreTraining",
            "BertForQuestionAnswering",
            "BertForTokenClassification",
            "BertLMHeadModel",
        ),
        output=("transformers.modeling_outputs", "BaseModelOutputWithPoolingAndCrossAttentions"),
    ),
    Family(
        modules=tuple(f"squeezebert_kernels.nn.plain.{name}" for name in ("model", "embeddings", "encoder", "heads")),
        classes=f"{_SQUEEZEBERT_CLASSES} SqueezeBertLayer GroupedConv1x1",
        linear="GroupedConv1x1",
        heads="num_heads",
        output=("squeezebert_kernels.nn.outputs", "BaseModelOutput"),
        **_SQUEEZEBERT,
    ),
)
