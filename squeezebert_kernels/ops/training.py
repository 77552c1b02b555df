"""`encoder_layer_training`: a layer of the encoder with dropout, whose gradients come from kernels of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_ops = torch.ops.squeezebert
NAMES = ("encoder_layer_training", "encoder_layer_training_backward")


def encoder_layer_training(
    input: Tensor,
    params: Sequence[Tensor],
    num_heads: int,
    groups: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    hidden_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    seed: Tensor | None = None,
    recompute: bool = False,
) -> Tensor:
    """`encoder_layer` as it is trained: in float32 on the CPU, with dropout, and a backward pass on the kernels.

    y = layer_norm(dropout(post_attention(attention(query(x), key(x), value(x)))) + x)
    output = layer_norm(dropout(output(gelu(intermediate(y)))) + y)

    input, params, num_heads, groups, eps, mask, cu_seqlens: as `encoder_layer` takes them, weights plain and float32.
    hidden_dropout, attention_dropout: the probabilities, 0 to below 1, that a value of the two results above, and a
    probability of attention, is replaced by 0; the others are divided by 1 - p. seed: int64, one element, wanted with
    dropout, another for each layer and step. What is dropped is a function of the seed and of the value's place
    (number of the sequence, place in it, channel or head and key): the same whatever the padding, the number of threads
    and the instruction set. It has `torch.nn.Dropout`'s distribution, not its bits.
    recompute: keep nothing but the input for the backward pass, and compute the forward pass again there. Otherwise 6 *
    C + I floats are kept for each token (SqueezeBERT: 30 KiB), I the intermediate channels.

    Gradients flow to input and params; what is frozen is not computed, nor what lies below the last that is not. They
    have the same bits with any number of threads. Without dropout the output has the bits of `encoder_layer`. A second
    derivative is an error. Returns the shape of input.
    """
    return _ops.encoder_layer_training.default(
        input,
        params,
        num_heads,
        groups,
        eps,
        mask,
        cu_seqlens,
        hidden_dropout,
        attention_dropout,
        seed,
        recompute,
    )[0]


def register(library: torch.library.Library) -> None:
    """Registers fakes, derivatives and autocast of both operators."""
    forward, backward = (f"squeezebert::{name}" for name in NAMES)
    torch.library.register_fake(forward, _fake_forward, lib=library)
    torch.library.register_fake(backward, _fake_backward, lib=library)
    torch.library.register_autograd(forward, _backward, setup_context=_keep, lib=library)
    torch.library.register_autograd(backward, _refuse_double_backward, lib=library)
    torch.library.register_autocast(forward, "cpu", torch.float32, lib=library)


def _padded(channels: int) -> int:
    """padded_stride of csrc/engine/steps.h: an odd number of cache lines."""
    return ((channels + 15) // 16 | 1) * 16


def _fake_forward(input: Tensor, params: Sequence[Tensor], *rest: Any) -> tuple[Tensor, Tensor]:
    tokens, channels = input.numel() // input.shape[-1], input.shape[-1]
    floats = tokens * (6 * _padded(channels) + _padded(params[10].shape[0])) + 2 * ((tokens + 15) // 16 * 16)
    recompute = len(rest) > 8 and rest[8]
    return input.new_empty(input.shape), input.new_empty((0 if recompute else floats,))


def _fake_backward(grad_output: Tensor, saved: Tensor, input: Tensor, params: Sequence[Tensor], *rest: Any) -> Any:
    needs_grad = rest[-1]
    return [value.new_empty(value.shape) for value, needed in zip((input, *params), needs_grad, strict=True) if needed]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, params, num_heads, groups, eps, mask, cu_seqlens, hidden, attention, seed, _ = inputs
    if mask is not None and mask.requires_grad:
        raise RuntimeError(
            "squeezebert::encoder_layer_training: mask: expected one that requires no gradient, got one that does; "
            "squeezebert_kernels.ops.encoder_layer gives it one"
        )
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], input, mask, cu_seqlens, seed, *params)
    ctx.numbers = num_heads, groups, eps, hidden, attention


def _backward(ctx: Any, grad_output: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    if grad_output is None:
        return (None,) * 11
    saved, input, mask, cu_seqlens, seed, *params = ctx.saved_tensors
    num_heads, groups, eps, hidden, attention = ctx.numbers
    needs_grad = [ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    gradients = iter(
        _ops.encoder_layer_training_backward.default(
            grad_output,
            saved,
            input,
            params,
            num_heads,
            groups,
            eps,
            mask,
            cu_seqlens,
            hidden,
            attention,
            seed,
            [int(needed) for needed in needs_grad],
        )
    )
    first, *others = [next(gradients) if needed else None for needed in needs_grad]
    return first, others, *(None,) * 9


def _refuse_double_backward(ctx: Any, *gradients: Any) -> None:
    raise RuntimeError(
        "squeezebert::encoder_layer_training: expected to be differentiated once, got a second derivative, which is "
        "not implemented; squeezebert_kernels.ops.formulas.encoder_layer can be differentiated any number of times"
    )
