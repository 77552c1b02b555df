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

    modules: where its classes are defined. base, embeddings, encoder, pooler: classes. layers: the layers' path in the
    encoder. heads: the attribute of the first linear's block that holds the number of heads.
    blocks: the modules of a layer ("" is the layer) and their classes (any of several, spaced); a subclass may compute
    anything, so only the very class is taken.
    linears: the six position-wise layers in the operators' order, of class linear_class. norms: the two LayerNorms, of
    class norm_class. dropouts: the layer's. activation: (block, attribute) of the function between FFN2 and FFN3.
    first_token_heads read only the pooled output, token_heads one output per token. output: where the class of the
    base model's output is found. warns_about_padding: its forward warns of padding tokens without a mask.
    """

    modules: tuple[str, ...]
    base: str
    embeddings: str
    encoder: str
    pooler: str
    layers: str
    blocks: dict[str, str]
    linears: tuple[str, ...]
    linear_class: str
    heads: str
    norms: tuple[str, str]
    norm_class: str
    dropouts: tuple[str, ...]
    activation: tuple[str, str]
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


_SQUEEZEBERT: dict[str, Any] = {
    "embeddings": "SqueezeBertEmbeddings",
    "encoder": "SqueezeBertEncoder",
    "pooler": "SqueezeBertPooler",
    "layers": "layers",
    "linears": (
        "attention.query",
        "attention.key",
        "attention.value",
        "post_attention.conv1d",
        "intermediate.conv1d",
        "output.conv1d",
    ),
    "norms": ("post_attention.layernorm", "output.layernorm"),
    "dropouts": ("attention.dropout", "post_attention.dropout", "output.dropout"),
    "activation": ("intermediate", "act"),
    "first_token_heads": ("SqueezeBertForSequenceClassification", "SqueezeBertForMultipleChoice"),
    "token_heads": (
        "SqueezeBertForMaskedLM",
        "SqueezeBertForTokenClassification",
        "SqueezeBertForQuestionAnswering",
    ),
}
_SQUEEZEBERT_BLOCKS = {
    "attention": "SqueezeBertSelfAttention",
    "post_attention": "ConvDropoutLayerNorm",
    "intermediate": "ConvActivation",
    "output": "ConvDropoutLayerNorm",
}

FAMILIES = (
    Family(
        modules=("transformers.models.squeezebert.modeling_squeezebert",),
        base="SqueezeBertModel",
        blocks={
            "": "SqueezeBertModule",
            **_SQUEEZEBERT_BLOCKS,
            "attention.matmul_qk": "MatMulWrapper",
            "attention.softmax": "Softmax",
            "attention.matmul_qkv": "MatMulWrapper",
        },
        linear_class="Conv1d",
        heads="num_attention_heads",
        norm_class="SqueezeBertLayerNorm",
        output=("transformers.modeling_outputs", "BaseModelOutputWithPooling"),
        warns_about_padding=True,
        **_SQUEEZEBERT,
    ),
    Family(
        modules=("transformers.models.bert.modeling_bert",),
        base="BertModel",
        embeddings="BertEmbeddings",
        encoder="BertEncoder",
        pooler="BertPooler",
        layers="layer",
        blocks={
            "": "BertLayer",
            "attention": "BertAttention",
            # In transformers 4 a class of its own calls scaled_dot_product_attention.
            "attention.self": "BertSelfAttention BertSdpaSelfAttention",
            "attention.output": "BertSelfOutput",
            "intermediate": "BertIntermediate",
            "output": "BertOutput",
        },
        linears=(
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ),
        linear_class="Linear",
        heads="num_attention_heads",
        norms=("attention.output.LayerNorm", "output.LayerNorm"),
        norm_class="LayerNorm",
        dropouts=("attention.self.dropout", "attention.output.dropout", "output.dropout"),
        activation=("intermediate", "intermediate_act_fn"),
        first_token_heads=(
            "BertForSequenceClassification",
            "BertForMultipleChoice",
            "BertForNextSentencePrediction",
        ),
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
        base="SqueezeBertModel",
        blocks={"": "SqueezeBertLayer", **_SQUEEZEBERT_BLOCKS},
        linear_class="GroupedConv1x1",
        heads="num_heads",
        norm_class="LayerNorm",
        output=("squeezebert_kernels.nn.outputs", "BaseModelOutput"),
        **_SQUEEZEBERT,
    ),
)
