"""What `optimize` puts in the place of a CUDA model's forward: padding taken out, one CUDA graph, padding put back."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..integration.binding import Binding
from ..integration.reading import Reading
from ..integration.request import Declined, tokens_of
from ..padding import RealTokens
from .embedding_layer_norm import new_problems
from .graph import Graphs, Model, Request, launch_model
from .launch import architecture_of
from .registration import operator
from .turns import Turns


class Weights:
    """The parameters of a model in the dtype that the kernels compute in, kept up to date.

    `of(parameter)` is the parameter itself where it has that dtype, else a copy. A write that PyTorch counts is copied
    again, in its turn; another storage makes them `stale`. (Writes through `.data` are not counted, and not noticed.)
    """

    released = False

    def __init__(self, parameters: list[Tensor], dtype: torch.dtype, turns: Turns) -> None:
        self._parameters, self._turns = parameters, turns
        self._seen = self._versions()  # before the values are read
        self._addresses = [p.data_ptr() for p in parameters]
        with torch.inference_mode(False):  # or they could not be written again outside of it
            self._copies = {id(p): p.detach().to(dtype).contiguous() for p in parameters}

    def of(self, parameter: Tensor) -> Tensor:
        return self._copies[id(parameter)]

    @property
    def stale(self) -> bool:
        return self._addresses != [p.data_ptr() for p in self._parameters]

    def is_fresh(self) -> bool:
        return self._versions() == self._seen

    def refresh(self, everything: bool = False) -> bool:
        if not everything and self.is_fresh():
            return False
        if _is_capturing(self._parameters[0].device):
            raise Declined(
                "weights that changed before a capture"
            )  # copied now, they would be new in its replays alone
        with self._turns.next(), torch.no_grad():
            seen = self._versions()
            for parameter, before, now in zip(self._parameters, self._seen, seen, strict=True):
                copy = self._copies[id(parameter)]
                if (everything or before != now) and copy.data_ptr() != parameter.data_ptr():
                    copy.copy_(parameter)
            self._seen = seen
        return True

    def _versions(self) -> list[int]:
        return [0 if p.is_inference() else p._version for p in self._parameters]


class CudaBinding(Binding):
    """A model on one device in the kernels' form: `model`, with weights in `dtype`. Computes as one CUDA graph."""

    device_type = "cuda"

    def __init__(self, reading: Reading, dtype: torch.dtype, previous: Binding | None = None) -> None:
        self.reading = reading
        self.device = reading.parameters[0].device
        operator("encoder")  # says so where Triton is missing
        architecture_of(self.device)  # says so where the kernels do not run
        turns = Turns(self.device)
        with turns.next():
            self.packed: Any = Weights(reading.parameters, dtype, turns)
        of = self.packed.of
        layers = [layer.whole for layer in reading.layers if layer.whole]
        numbers = [(x.heads, x.eps, layer.groups) for x, layer in zip(reading.layers, layers, strict=False)]
        if len(layers) < len(reading.layers) or any(each != numbers[0] for each in numbers):
            raise Declined("layers that differ in heads, groups or epsilon, or with modules of another kind")
        self.output_dtype = reading.embedding[0].dtype
        pooler = reading.pooler
        self.model = Model(
            embedding=(*map(of, reading.embedding[:-1]), reading.embedding[-1]),
            params=[of(tensor) for layer in layers for tensor in layer.tensors],
            pooler=None if pooler is None or pooler.bias is None else (of(pooler.weight), of(pooler.bias)),
            num_heads=numbers[0][0],
            groups=numbers[0][2],
            eps=numbers[0][1],
        )
        self.graphs = Graphs(self.model, turns)
        weakref.finalize(self, turns.wait)  # before its memory goes back to the allocator

    @contextmanager
    def on(self, twins: dict[int, nn.Module]) -> Iterator[None]:
        yield  # no module of another kind is called

    @staticmethod
    def check_time(device: torch.device) -> None:
        if _is_capturing(device):
            raise Declined("a model that changed before a capture")

    def compute(
        self, module: Any, request: dict[str, Any], first_token: bool, all_positions: bool
    ) -> tuple[Tensor, Tensor | None]:
        # The graphs' buffers outlive the caller's inference mode.
        with torch.inference_mode(False), torch.no_grad():
            return self._compute_rows(request, first_token, all_positions)

    def _compute_rows(
        self, request: dict[str, Any], first_token: bool, all_positions: bool
    ) -> tuple[Tensor, Tensor | None]:
        ids = self._ids(request)
        if _is_capturing(self.device):
            return self._padded(request, ids, first_token)
        mask = request.get("attention_mask")
        tokens = None if mask is None else tokens_of(_on_host(mask), tuple(ids.shape))
        if tokens is not None and (all_positions or (self.has_pooler and not tokens.first_is_real)):
            # Someone reads a padded position: compute them all, as the original does.
            return self._padded(request, ids, first_token)
        index = None if tokens is None else _on_device(tokens.index, self.device)
        packed = Request(
            ids=_packed_rows(ids, index),
            types=_packed_rows(_like_ids(request, "token_type_ids", ids), index),
            positions=_positions(request, ids, tokens, index),
            lengths=(int(ids.shape[0]), int(ids.shape[1])) if tokens is None else tokens.cu_seqlens,
            first_token=first_token,
        )

        def finish(rows: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor | None]:
            return _finish(rows, pooled, first_token, tuple(ids.shape), index, self.output_dtype)

        return self.graphs.run(packed, finish)

    def _padded(self, request: dict[str, Any], ids: Tensor, first_token: bool) -> tuple[Tensor, Any]:
        """All positions, padded ones too, launched one kernel after the other, with nothing read from the device."""
        mask, capturing = request.get("attention_mask"), _is_capturing(self.device)
        if mask is not None and mask.shape != ids.shape:
            raise Declined(f"attention_mask: shape {tuple(mask.shape)}, not {tuple(ids.shape)}")
        if capturing and mask is not None and mask.device != self.device:
            raise ValueError(
                f"attention_mask: expected a tensor on {self.device} while a CUDA graph is captured, since one of "
                f"another device would be read now and not in the replays, got one on {mask.device}"
            )
        request_of_kernels = (
            ids.reshape(-1),
            _packed_rows(_like_ids(request, "token_type_ids", ids), None),
            _packed_rows(_like_ids(request, "position_ids", ids), None),
            (int(ids.shape[0]), int(ids.shape[1])),
            None if mask is None else mask.to(self.device).bool()[:, None, None, :],
            first_token,
        )
        if capturing:  # the kernels become part of that graph, whose replays nobody tells us of
            rows, pooled = launch_model(self.model, new_problems(self.device), *request_of_kernels)
        else:
            rows, pooled = self.graphs.launch(*request_of_kernels)
        return _finish(rows, pooled, first_token, tuple(ids.shape), None, self.output_dtype)

    def _ids(self, request: dict[str, Any]) -> Tensor:
        ids: Any = request.get("input_ids")
        if ids is None:
            raise Declined("inputs_embeds")
        if request.get("position_ids") is None and ids.shape[1] > self.model.embedding[1].shape[0]:
            raise Declined("more tokens than positions")
        return ids


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _finish(
    rows: Tensor,
    pooled: Tensor | None,
    first_token: bool,
    shape: tuple[int, ...],
    index: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """Hidden state [N, S, C] ([N, 1, C], where first_token) and pooled [N, C]: fresh tensors of `dtype`.

    rows: [T, C] ([N, C], where first_token). index: where they go among the [N * S]; None: they are all there.
    """
    count, length = shape
    if first_token:
        hidden = rows.unsqueeze(1).to(dtype, copy=True)
    elif index is None:
        hidden = rows.view(count, length, -1).to(dtype, copy=True)
    else:
        hidden = torch.zeros(count * length, rows.shape[1], dtype=dtype, device=rows.device)
        hidden = hidden.index_copy_(0, index, rows.to(dtype)).view(count, length, -1)
    return hidden, None if pooled is None else pooled.to(dtype, copy=True)


def _like_ids(request: dict[str, Any], name: str, ids: Tensor) -> Tensor | None:
    """The ids given as `name`, in the shape of `ids`."""
    values = request.get(name)
    return None if values is None else values.expand(ids.shape)


def _packed_rows(values: Tensor | None, index: Tensor | None) -> Tensor | None:
    if values is None:
        return None
    return values.reshape(-1) if index is None else values.reshape(-1).index_select(0, index)


def _positions(request: dict[str, Any], ids: Tensor, tokens: RealTokens | None, index: Tensor | None) -> Tensor | None:
    """The position of each row; None means counted from 0 in each of the [N, S]."""
    values = _like_ids(request, "position_ids", ids)
    if values is not None or tokens is None:
        return _packed_rows(values, index)
    return _on_device(tokens.positions, ids.device)


def _on_host(mask: Any) -> Tensor:
    if type(mask) is not Tensor:
        raise Declined("attention_mask: not a tensor")
    return mask.cpu()


def _on_device(values: Tensor, device: torch.device) -> Tensor:
    """A copy that the host does not wait for."""
    if device.type != "cuda":
        return values
    return values.pin_memory().to(device, non_blocking=True)
