"""What `optimize` puts in the place of a CUDA model's forward: padding taken out, one CUDA graph, padding put back."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from ..integration.architectures import Family
from ..integration.binding import Binding
from ..integration.forward import BaseForward
from ..integration.packed import Linear
from ..integration.padding import Declined, RealTokens, real_tokens
from .arguments import DTYPES
from .embedding_layer_norm import new_problems
from .graph import Graphs, Model, Request, launch_model
from .launch import architecture_of
from .turns import Turns


class CountedWrites:
    """Notices new values in `tensors` by their addresses and the writes that PyTorch counts. Reads nothing of them."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self._seen = self._look()

    def holds(self) -> bool:
        return self._look() == self._seen

    def _look(self) -> list[tuple[int, int]]:
        return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in self._tensors]


class Weights:
    """The parameters of a model in the dtype that the kernels compute in, kept up to date.

    `of(parameter)` is the parameter itself where it has that dtype, else a copy. A write that PyTorch counts is copied
    again, in its turn; another storage makes them `stale`. (Writes through `.data` are not counted, and not noticed.)
    """

    released = False

    def __init__(self, parameters: list[Tensor], dtype: torch.dtype, turns: Turns) -> None:
        self._parameters, self._turns = parameters, turns
        with torch.inference_mode(False):  # or they could not be written again outside of it
            self._copies = {id(p): p.detach().to(dtype).contiguous() for p in parameters}
        self._seen = self._versions()
        self._addresses = [p.data_ptr() for p in parameters]

    def of(self, parameter: Tensor) -> Tensor:
        return self._copies[id(parameter)]

    @property
    def stale(self) -> bool:
        return self._addresses != [p.data_ptr() for p in self._parameters]

    def refresh(self) -> None:
        if self._versions() == self._seen:
            return
        if _is_capturing(self._parameters[0].device):
            raise Declined(
                "weights that changed before a capture"
            )  # copied now, they would be new in its replays alone
        with self._turns.next(), torch.no_grad():
            seen = self._versions()
            for parameter, before, now in zip(self._parameters, self._seen, seen, strict=True):
                copy = self._copies[id(parameter)]
                if before != now and copy.data_ptr() != parameter.data_ptr():
                    copy.copy_(parameter)
            self._seen = seen

    def reclaim(self) -> None:
        """Nothing was released."""

    def _versions(self) -> list[int]:
        return [0 if p.is_inference() else p._version for p in self._parameters]


class CudaBinding(Binding):
    """A model on one device in the kernels' form: `model`, with weights in `dtype`."""

    def __init__(self, base: nn.Module, family: Family, dtype: torch.dtype) -> None:
        self.device = next(base.parameters()).device
        architecture_of(self.device)  # says so where the kernels do not run
        self.device_type = self.device.type
        self._turns = Turns(self.device)
        with self._turns.next():
            super().__init__(base, family, dtype)
        self.output_dtype = self.embedding[0].dtype
        self.model = Model(
            embedding=self._converted(self.embedding),
            params=list(self._converted(tuple(self.params))),
            pooler=None if self.pooler is None else self._converted(self.pooler),
            num_heads=self.num_heads or 1,
            groups=self.groups,
            eps=self.eps or 0.0,
        )
        self.graphs = Graphs(self.model, self._turns)
        weakref.finalize(self, self._turns.wait)  # before its memory goes back to the allocator

    def _converted(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(self.packed.of(value) if isinstance(value, Tensor) else value for value in values)

    def _watch_values(self, tensors: list[Tensor]) -> CountedWrites:
        return CountedWrites(tensors)

    def _takes(self, value: Any) -> bool:
        plain = type(value) in (nn.Parameter, Tensor) and value.layout == torch.strided
        return plain and value.device == self.device and value.dtype in DTYPES

    def _pack(self, linears: list[Linear]) -> Any:
        return Weights(self.parameters, self.dtype, self._turns)

    def _packed_weights(self) -> list[Tensor]:
        return [linear.weight for linear in self._linears]


class CudaForward(BaseForward):
    """The forward of a base model on a CUDA device, computed in its dtype."""

    device_type = "cuda"

    def _bind_anew(self) -> Binding:
        device = next(self.module.parameters()).device
        if device.type != self.device_type:
            raise Declined(f"a model on {device}")
        return CudaBinding(self.module, self.family, self._dtype)

    def _check_rebinding(self, binding: Any) -> None:
        if _is_capturing(binding.device if binding is not None else next(self.module.parameters()).device):
            raise Declined("a model that changed before a capture")

    def _trace(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs)

    def _compute(self, binding: Any, request: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        # The graphs' buffers outlive the caller's inference mode.
        with torch.inference_mode(False), torch.no_grad():
            return self._compute_rows(binding, request)

    def _compute_rows(self, binding: Any, request: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        first_token, all_positions = self._wants()
        ids = _ids_of(request, binding)
        if _is_capturing(binding.device):
            return self._padded(binding, request, ids, first_token)
        mask = request.get("attention_mask")
        tokens = None if mask is None else real_tokens(_on_host(mask), tuple(ids.shape))
        if tokens is not None and (all_positions or (binding.pooler is not None and not tokens.first_is_real)):
            # Someone reads a padded position: compute them all, as the original does.
            return self._padded(binding, request, ids, first_token)
        index = None if tokens is None else _on_device(tokens.index, binding.device)
        packed = Request(
            ids=_packed_rows(ids, index),
            types=_packed_rows(_like_ids(request, "token_type_ids", ids), index),
            positions=_positions(request, ids, tokens, index),
            lengths=(int(ids.shape[0]), int(ids.shape[1])) if tokens is None else tokens.cu_seqlens,
            first_token=first_token,
        )

        def finish(rows: Tensor, pooled: Tensor | None) -> tuple[Tensor, Tensor | None]:
            return _finish(rows, pooled, first_token, tuple(ids.shape), index, binding.output_dtype)

        return binding.graphs.run(packed, finish)

    def _padded(self, binding: Any, request: dict[str, Any], ids: Tensor, first_token: bool) -> tuple[Tensor, Any]:
        """All positions, padded ones too, launched one kernel after the other, with nothing read from the device."""
        mask, capturing = request.get("attention_mask"), _is_capturing(binding.device)
        if mask is not None and mask.shape != ids.shape:
            raise Declined(f"attention_mask: shape {tuple(mask.shape)}, not {tuple(ids.shape)}")
        if capturing and mask is not None and mask.device != binding.device:
            raise ValueError(
                f"attention_mask: expected a tensor on {binding.device} while a CUDA graph is captured, since one of "
                f"another device would be read now and not in the replays, got one on {mask.device}"
            )
        request_of_kernels = (
            ids.reshape(-1),
            _packed_rows(_like_ids(request, "token_type_ids", ids), None),
            _packed_rows(_like_ids(request, "position_ids", ids), None),
            (int(ids.shape[0]), int(ids.shape[1])),
            None if mask is None else mask.to(binding.device).bool()[:, None, None, :],
            first_token,
        )
        if capturing:  # the kernels become part of that graph, whose replays nobody tells us of
            rows, pooled = launch_model(binding.model, new_problems(binding.device), *request_of_kernels)
        else:
            rows, pooled = binding.graphs.launch(*request_of_kernels)
        return _finish(rows, pooled, first_token, tuple(ids.shape), None, binding.output_dtype)


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


def _ids_of(request: dict[str, Any], binding: Any) -> Tensor:
    ids: Any = request.get("input_ids")
    if ids is None or request.get("inputs_embeds") is not None:
        raise Declined("inputs_embeds")
    if not _are_ids(ids) or ids.dim() != 2 or ids.device != binding.device:
        raise Declined(f"input_ids: not integers [N, S] on {binding.device}")
    if not ids.numel():
        raise Declined("an empty batch")
    if request.get("position_ids") is None and ids.shape[1] > binding.model.embedding[1].shape[0]:
        raise Declined("more tokens than positions")
    return ids


def _are_ids(ids: Any) -> bool:
    return type(ids) is Tensor and ids.dtype in (torch.int64, torch.int32)


def _like_ids(request: dict[str, Any], name: str, ids: Tensor) -> Tensor | None:
    """The ids given as `name`, in the shape of `ids`."""
    values = request.get(name)
    if values is None:
        return None
    if not _are_ids(values) or values.device != ids.device or values.shape not in (ids.shape, (1, ids.shape[1])):
        raise Declined(f"{name}: not integers like input_ids")
    return values.expand(ids.shape)


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
