"""The self-test of a binding: the original path and the kernels, on a few tokens, before the kernels may serve."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..precision import Precision
from .request import Declined

# Both paths may differ by the root of the rounding unit of the coarser of their dtypes, relative to the largest output:
# half of the digits. Twelve layers lose two or three decimal digits of float32's seven; what computes something else
# agrees in fewer than three.
_DIGITS_KEPT = 0.5
_TOKENS = 4


def check(module: nn.Module, original: Callable[..., Any], binding: Any, precision: Precision) -> None:
    """Raises Declined, which says by how much, unless `binding` computes what `original(module, ...)` does.

    precision: what the kernels compute in. Calls no hook, draws no random number, and leaves `module` as it is.
    """
    request = _request(binding.reading.embedding)
    device = request["input_ids"].device
    twins: dict[int, nn.Module] = {}
    path = "the original path"
    plain = {"output_attentions": False, "output_hidden_states": False}
    with ExitStack() as stack:
        for context in (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.device(device),
            torch.autocast(device.type, enabled=False),
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            stack.enter_context(context)
        twin = _twin(module, twins)
        try:
            hidden, pooled = hidden_and_pooled(original(twin, **request, **plain))
            binding.output_dtype, path = hidden.dtype, "the kernels"
            with binding.on(twins):
                ours, ours_pooled = binding.compute(twin, request, False, False)
        except Exception as error:
            raise Declined(f"self-test: {path} raised {type(error).__name__}: {error}") from error
        finally:
            for each in twins.values():
                vars(each).clear()  # each holds itself
    real = request["attention_mask"].bool()
    errors = [_error(ours[real], hidden[real])]
    if binding.has_pooler:
        errors.append(_error(ours_pooled, pooled))
    allowed = max(_unit(dtype) for dtype in (hidden.dtype, *precision.dtypes)) ** _DIGITS_KEPT
    if not max(errors) <= allowed:
        raise Declined(
            f"self-test: the kernels differ from the model by {max(errors):.1e} of its largest output (allowed: "
            f"{allowed:.1e}), so it computes something else than its classes say"
        )


def _unit(dtype: torch.dtype) -> float:
    """int8's values err by half of 1/127 of the largest in a row, so it has the unit of 7 bits, less two for rows whose
    largest value is far above the others."""
    return 2.0**-5 if dtype == torch.int8 else torch.finfo(dtype).eps


def _request(tables: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Two sequences, the second one padded."""
    words, positions, types = (table.shape[0] for table in tables[:3])
    length = min(_TOKENS, positions)
    ids = torch.arange(1, 2 * length + 1, device=tables[0].device).view(2, length)
    mask = torch.ones_like(ids)
    mask[1, (length + 1) // 2 :] = 0
    return {"input_ids": ids % words, "token_type_ids": ids % types, "attention_mask": mask}


def _twin(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """`module` in eval mode and without hooks, over the same parameters."""
    if id(module) not in made:
        twin = made[id(module)] = object.__new__(type(module))
        vars(twin).update(vars(module), training=False)
        vars(twin)["_modules"] = {
            name: None if child is None else _twin(child, made) for name, child in module._modules.items()
        }
        vars(twin)["_compiled_call_impl"] = twin.forward  # what a call runs in place of hooks and forward
    return made[id(module)]


def _error(ours: Any, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value; NaN agrees with NaN, infinity with infinity."""
    ours, theirs = ours.double(), theirs.double()
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    difference = torch.where(same, 0.0, (ours - theirs).abs())
    largest = theirs.abs().nan_to_num(0.0, 0.0, 0.0).max().clamp_min(1.0)
    return float((difference / largest).max())


def hidden_and_pooled(outputs: Any) -> tuple[Any, Any]:
    """The last hidden state and the pooled output, None without a pooler, out of a base model's tuple or outputs."""
    if isinstance(outputs, tuple):
        return outputs[0], outputs[1] if len(outputs) > 1 else None
    return outputs.last_hidden_state, outputs.pooler_output
