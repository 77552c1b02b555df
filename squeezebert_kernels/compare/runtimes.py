"""Graph runtimes: ONNX Runtime and OpenVINO, each on SqueezeBERT as exported, on its MatMul form, and on BERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from .contest import Contest, Peer, RunOnce
from .exported import INPUTS, OUTPUTS
from .quantized import dynamic_int8, post_training_int8
from .workload import Workload


class Runtime(Peer):
    """A runtime on one of the graphs; of BERT, whose layers are matrix products as they are exported, there is one."""

    token_major: ClassVar[bool] = False

    def graph(self, contest: Contest) -> Path:
        exported = contest.exported_bert if self.is_bert else contest.exported
        return exported.token_major() if self.token_major else exported.as_is()


class OnnxRuntime(Runtime):
    """int8 is its dynamic quantization: nothing to calibrate."""

    name = "onnxruntime"
    title = "ONNX Runtime, as exported"
    requires = ("onnxruntime", "onnx", "onnxscript")
    dtypes = ("float32", "int8")

    def __init__(self, contest: Contest, dtype: str) -> None:
        import onnxruntime

        super().__init__(contest, dtype)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = contest.threads
        options.inter_op_num_threads = 1
        # Its workers would go on spinning after a pass, on the cores of whoever's turn is next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        path = self.graph(contest)
        if dtype == "int8":
            path = dynamic_int8(path)
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def bind(self, workload: Workload) -> RunOnce:
        feed = _feed(workload)
        return lambda: torch.from_numpy(self.session.run(OUTPUTS, feed)[0])


class OnnxRuntimeTokenMajor(OnnxRuntime):
    name = "onnxruntime-matmul"
    title = "ONNX Runtime, MatMul graph"
    token_major = True


class OnnxRuntimeBert(OnnxRuntime):
    name = "onnxruntime-bert"
    title = "BERT, ONNX Runtime"
    is_bert = True


class OpenVino(Runtime):
    """int8 is NNCF's post-training quantization for transformers, calibrated on the text that is timed."""

    name = "openvino"
    title = "OpenVINO, as exported"
    requires = ("openvino", "onnx", "onnxscript")
    dtypes = ("float32", "float16", "bfloat16", "int8")

    # Where the CPU lacks a format OpenVINO runs float32 without a word, so it is asked first.
    CAPABILITIES: ClassVar[dict[str, str]] = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}
    # Of what is not quantized, too.
    HINTS: ClassVar[dict[str, str]] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "f32"}

    @classmethod
    def reason_to_skip(cls, contest: Contest, dtype: str) -> str | None:
        if reason := super().reason_to_skip(contest, dtype):
            return reason
        import openvino

        if cls.CAPABILITIES[dtype] not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return f"no {dtype} in this CPU; OpenVINO would compute in float32"
        return None

    @classmethod
    def needs(cls, dtype: str) -> tuple[str, ...]:
        return (*cls.requires, "nncf") if dtype == "int8" else cls.requires

    def __init__(self, contest: Contest, dtype: str) -> None:
        import openvino

        super().__init__(contest, dtype)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(contest.threads),
            "INFERENCE_PRECISION_HINT": self.HINTS[dtype],
        }
        core = openvino.Core()
        model = core.read_model(self.graph(contest))
        if dtype == "int8":
            model = post_training_int8(model, [_feed(workload) for workload in contest.calibration])
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()

    def bind(self, workload: Workload) -> RunOnce:
        feed = _feed(workload)
        return lambda: torch.from_numpy(self.request.infer(feed, share_inputs=True, share_outputs=True)[0])


class OpenVinoTokenMajor(OpenVino):
    name = "openvino-matmul"
    title = "OpenVINO, MatMul graph"
    token_major = True


class OpenVinoBert(OpenVino):
    name = "openvino-bert"
    title = "BERT, OpenVINO"
    is_bert = True


def _feed(workload: Workload) -> dict[str, Any]:
    return dict(zip(INPUTS, (workload.input_ids.numpy(), workload.attention_mask.numpy()), strict=True))
