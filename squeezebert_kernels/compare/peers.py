"""The competitors, one class each: how to set it up, and what one pass of it is.

Every peer gets the same batch (token ids and mask, padded) and gives the base model's two outputs, the last hidden
state and the pooler's; every peer runs float32 on the same number of threads, set up as its own manual recommends.
"""

from __future__ import annotations

import copy
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .exported import INPUTS, OUTPUTS, ExportedModel
from .flops import EncoderShape
from .token_major import FAMILY_OF
from .workload import Workload

RunOnce = Callable[[], Tensor]


@dataclass(frozen=True)
class Contest:
    """What the competitors compete on. `model` is a Hugging Face base model in eval mode that nobody may change."""

    model: Any
    exported: ExportedModel
    threads: int


class Peer(ABC):
    """A competitor. Making one sets it up (export, compile, pack), which is not timed."""

    name: ClassVar[str]
    title: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    # False for a network of other weights, whose outputs cannot be compared.
    same_model: ClassVar[bool] = True

    @classmethod
    def reason_to_skip(cls, contest: Contest) -> str | None:
        """Why this peer cannot take part, such as packages that are not installed; None when it can."""
        missing = [package for package in cls.requires if importlib.util.find_spec(package) is None]
        return f"not installed: {', '.join(missing)}" if missing else None

    @abstractmethod
    def __init__(self, contest: Contest) -> None: ...

    @abstractmethod
    def bind(self, workload: Workload) -> RunOnce:
        """One pass over this batch: gives the last hidden state, [sequences, tokens, hidden]."""

    def shape(self, contest: Contest) -> EncoderShape:
        """The encoder this peer runs, for counting its operations."""
        return EncoderShape.of(contest.model.config)


class TorchPeer(Peer):
    """A `transformers` model, called as its users call it."""

    model: Any

    def bind(self, workload: Workload) -> RunOnce:
        return lambda: self.model(workload.input_ids, attention_mask=workload.attention_mask).last_hidden_state


class HuggingFace(TorchPeer):
    name = "huggingface"
    title = "Hugging Face eager"

    def __init__(self, contest: Contest) -> None:
        self.model = contest.model


class BertBase(TorchPeer):
    """The dense network that SqueezeBERT replaces: same depth and widths, no groups, seeded weights."""

    name = "bert"
    title = "BERT, Hugging Face eager"
    same_model = False

    FIELDS = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
        "pad_token_id",
    )

    @classmethod
    def reason_to_skip(cls, contest: Contest) -> str | None:
        return "the model is a BERT itself" if contest.model.config.model_type == "bert" else None

    def __init__(self, contest: Contest) -> None:
        from transformers import BertConfig, BertModel

        config = contest.model.config
        torch.manual_seed(0)
        self.model = BertModel(BertConfig(**{name: getattr(config, name) for name in self.FIELDS})).eval()

    def shape(self, contest: Contest) -> EncoderShape:
        return EncoderShape.of(contest.model.config).dense()


class TorchCompile(TorchPeer):
    """`torch.compile` of every encoder layer, with dynamic shapes.

    The layers share one compilation, for a batch of 1 and another for larger ones, which takes seconds where compiling
    the whole model for each shape takes minutes; the passes take the same time.
    """

    name = "compile"
    title = "torch.compile"

    def __init__(self, contest: Contest) -> None:
        self.model = copy.deepcopy(contest.model)
        family = FAMILY_OF[contest.model.config.model_type]
        for layer in self.model.encoder.get_submodule(family.layers).children():
            layer.forward = torch.compile(layer.forward, dynamic=True)


class OnnxRuntime(Peer):
    name = "onnxruntime"
    title = "ONNX Runtime, as exported"
    requires = ("onnxruntime", "onnx", "onnxscript")
    token_major: ClassVar[bool] = False

    def __init__(self, contest: Contest) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = contest.threads
        options.inter_op_num_threads = 1
        # Its workers would go on spinning after a pass, on the cores of whoever's turn is next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        path = contest.exported.token_major() if self.token_major else contest.exported.as_is()
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def bind(self, workload: Workload) -> RunOnce:
        feed = dict(zip(INPUTS, (workload.input_ids.numpy(), workload.attention_mask.numpy()), strict=True))
        return lambda: torch.from_numpy(self.session.run(OUTPUTS, feed)[0])


class OnnxRuntimeTokenMajor(OnnxRuntime):
    name = "onnxruntime-matmul"
    title = "ONNX Runtime, MatMul graph"
    token_major = True


class OpenVino(Peer):
    name = "openvino"
    title = "OpenVINO, as exported"
    requires = ("openvino", "onnx", "onnxscript")
    token_major: ClassVar[bool] = False

    def __init__(self, contest: Contest) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(contest.threads),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        path = contest.exported.token_major() if self.token_major else contest.exported.as_is()
        self.request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def bind(self, workload: Workload) -> RunOnce:
        feed = dict(zip(INPUTS, (workload.input_ids.numpy(), workload.attention_mask.numpy()), strict=True))
        return lambda: torch.from_numpy(self.request.infer(feed, share_inputs=True, share_outputs=True)[0])


class OpenVinoTokenMajor(OpenVino):
    name = "openvino-matmul"
    title = "OpenVINO, MatMul graph"
    token_major = True


class SqueezebertKernels(TorchPeer):
    """This library, by its one line."""

    name = "squeezebert_kernels"
    title = "squeezebert_kernels"

    def __init__(self, contest: Contest) -> None:
        from squeezebert_kernels import optimize

        self.model = copy.deepcopy(contest.model)
        optimize(self.model)


PEERS: tuple[type[Peer], ...] = (
    HuggingFace,
    BertBase,
    TorchCompile,
    OnnxRuntime,
    OnnxRuntimeTokenMajor,
    OpenVino,
    OpenVinoTokenMajor,
    SqueezebertKernels,
)
OURS = SqueezebertKernels
REFERENCE = HuggingFace
