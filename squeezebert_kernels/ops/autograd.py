"""Gradients: every operator's backward is that of the function of the same name in `formulas`, recomputed.

`<op>_backward` is an operator of its own, so that compilers see one opaque call. It takes the gradient of the output,
the arguments of the forward call, and for each of their tensors whether its gradient is wanted; it returns those that
are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import formulas

DIFFERENTIABLE = (
    "grouped_conv1x1",
    "grouped_conv1x1_gelu",
    "grouped_conv1x1_add_layer_norm",
    "grouped_conv1d",
    "attention",
    "grouped_qkv_attention",
    "grouped_ffn",
    "embedding_layer_norm",
    "encoder_layer",
    "encoder",
)


def register(library: torch.library.Library) -> None:
    """Defines `<op>_backward` for every differentiable operator and registers both derivatives."""
    for name in DIFFERENTIABLE:
        _Backward(name).register(library)


class _Backward:
    """The backward of one operator, made from its schema."""

    def __init__(self, name: str) -> None:
        self.name = name
        schema = getattr(torch.ops.squeezebert, name).default._schema
        self.arguments = [argument.name for argument in schema.arguments]
        types = [str(argument.type) for argument in schema.arguments]
        self.is_tensor = ["Tensor" in type_ for type_ in types]
        self.is_list = [type_ == "List[Tensor]" for type_ in types]
        text = str(schema)
        parameters = re.sub(r"=[^,]+", "", text[text.index("(") + 1 : text.rindex(") ->")])
        self.schema = f"{name}_backward(Tensor grad_output, {parameters}, bool[] needs_grad) -> Tensor[]"

    def register(self, library: torch.library.Library) -> None:
        forward, backward = f"squeezebert::{self.name}", f"squeezebert::{self.name}_backward"
        library.define(self.schema)
        library.impl(f"{self.name}_backward", self.compute, "CompositeExplicitAutograd")
        torch.library.register_fake(backward, self.fake, lib=library)
        torch.library.register_autograd(backward, self.refuse_double_backward, lib=library)
        torch.library.register_autograd(forward, self.backward, setup_context=self.setup_context, lib=library)

    def tensors(self, values: Sequence[Any]) -> list[Any]:
        """Of one value for each argument, those of tensor arguments, lists spelled out."""
        flat: list[Any] = []
        for value, is_tensor, is_list in zip(values, self.is_tensor, self.is_list, strict=True):
            if is_tensor:
                flat.extend(value if is_list else (value,))
        return flat

    def with_tensors(self, values: Sequence[Any], flat: Sequence[Any]) -> tuple[Any, ...]:
        """`values` with those of tensor arguments replaced: the inverse of `tensors`."""
        replacements = iter(flat)

        def replaced() -> Iterator[Any]:
            for value, is_tensor, is_list in zip(values, self.is_tensor, self.is_list, strict=True):
                if is_list:
                    yield [next(replacements) for _ in value]
                else:
                    yield next(replacements) if is_tensor else value

        return tuple(replaced())

    def setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        flat = self.tensors(inputs)
        ctx.save_for_backward(*flat)
        ctx.values = self.with_tensors(inputs, [None] * len(flat))

    def backward(self, ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        # Autograd was not told of trailing arguments that were left at their defaults, and wants no gradients for them.
        passed = len(ctx.needs_input_grad)
        needs_grad = self.tensors([*ctx.needs_input_grad, *[False] * (len(self.arguments) - passed)])
        arguments = self.with_tensors(ctx.values, ctx.saved_tensors)
        operator = getattr(torch.ops.squeezebert, f"{self.name}_backward").default
        gradients = iter(operator(grad_output, *arguments, needs_grad))
        flat = [next(gradients) if needed else None for needed in needs_grad]
        nothing = [
            [None] * len(value) if is_list else None for value, is_list in zip(ctx.values, self.is_list, strict=True)
        ]
        return self.with_tensors(nothing, flat)[:passed]

    def compute(self, grad_output: Tensor, *arguments_and_needs: Any) -> list[Tensor]:
        *arguments, needs_grad = arguments_and_needs
        self.check_plain(arguments)
        flat = [
            value.detach().requires_grad_(needed) if isinstance(value, Tensor) else value
            for value, needed in zip(self.tensors(arguments), needs_grad, strict=True)
        ]
        wanted = [value for value, needed in zip(flat, needs_grad, strict=True) if needed]
        autocast_off = torch.autocast(grad_output.device.type, enabled=False)
        with _recording_gradients(), torch.enable_grad(), autocast_off:
            if grad_output.dtype == torch.float32:  # then a float16 tensor is a weight on the CPU
                flat = [v.float() if isinstance(v, Tensor) and v.dtype == torch.float16 else v for v in flat]
            output = getattr(formulas, self.name)(*self.with_tensors(arguments, flat))
            gradients = torch.autograd.grad(output, wanted, grad_output, materialize_grads=True)
        # An operator's outputs may share memory neither with its inputs nor with each other.
        return [gradient.clone(memory_format=torch.contiguous_format) for gradient in gradients]

    def fake(self, grad_output: Tensor, *arguments_and_needs: Any) -> list[Tensor]:
        *arguments, needs_grad = arguments_and_needs
        tensors = zip(self.tensors(arguments), needs_grad, strict=True)
        return [value.new_empty(value.shape) for value, needed in tensors if needed]

    def check_plain(self, arguments: Sequence[Any]) -> None:
        for name, value, is_list in zip(self.arguments, arguments, self.is_list, strict=True):
            for index, tensor in enumerate(value if is_list else (value,)):
                if isinstance(tensor, Tensor) and tensor.dtype == torch.uint8:
                    place = f"{name}[{index}]" if is_list else name
                    raise RuntimeError(
                        f"squeezebert::{self.name}: {place}: expected a plain weight in a call that is differentiated, "
                        "got a packed one, which serves inference only; pass the plain weight, or call under "
                        "torch.no_grad()"
                    )

    def refuse_double_backward(self, ctx: Any, *gradients: Any) -> None:
        raise RuntimeError(
            f"squeezebert::{self.name}: expected to be differentiated once, got a second derivative, which is not "
            f"implemented; squeezebert_kernels.ops.formulas.{self.name} can be differentiated any number of times"
        )


def _recording_gradients() -> Any:
    """Lets autograd record inside an operator's body, where the dispatcher has switched it off for the call itself."""
    keys = torch._C.DispatchKey
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (keys.AutogradCPU, keys.AutogradCUDA, keys.AutogradOther):
        excluded = excluded.remove(key)
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)
