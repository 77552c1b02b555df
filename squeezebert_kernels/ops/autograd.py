"""Gradients: every operator's derivatives are those of the function of the same name in `formulas`.

In reverse mode that function is recomputed by `<op>_backward`, an operator of its own, so that compilers see one opaque
call. It takes the gradient of the output, the arguments of the forward call, and for each of their tensors whether its
gradient is wanted; it returns those that are.

In forward mode (`torch.autograd.forward_ad`) and under `torch.func`'s transforms, whose rules are for ATen's operators,
the function itself stands in for the operator, once the operator has checked its arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

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


_DERIVATIVES = (torch._C._functorch.TransformType.Grad, torch._C._functorch.TransformType.Jvp)


def register(library: torch.library.Library) -> None:
    """Defines `<op>_backward` for every differentiable operator and registers the derivatives of both."""
    for name in DIFFERENTIABLE:
        _Differentiable(name).register(library)


class _Differentiable:
    """The derivatives of one operator, made from its schema."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.overload = getattr(torch.ops.squeezebert, name).default
        schema = self.overload._schema
        self.arguments = [argument.name for argument in schema.arguments]
        self.defaults = [argument.default_value for argument in schema.arguments]
        types = [str(argument.type) for argument in schema.arguments]
        self.is_tensor = ["Tensor" in type_ for type_ in types]
        self.is_list = [type_ == "List[Tensor]" for type_ in types]
        text = str(schema)
        parameters = re.sub(r"=[^,]+", "", text[text.index("(") + 1 : text.rindex(") ->")])
        self.schema = f"{name}_backward(Tensor grad_output, {parameters}, bool[] needs_grad) -> Tensor[]"

    def register(self, library: torch.library.Library) -> None:
        backward = f"squeezebert::{self.name}_backward"
        library.define(self.schema)
        library.impl(f"{self.name}_backward", self.backward, "CompositeExplicitAutograd")
        torch.library.register_fake(backward, self.fake_backward, lib=library)
        torch.library.register_autograd(backward, self.refuse_double_backward, lib=library)
        library.impl(self.name, self.forward, "Autograd", with_keyset=True)

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

    def forward(self, keyset: torch._C.DispatchKeySet, *given: Any) -> Tensor:
        """The operator, where autograd may have to record it."""
        arguments = (*given, *self.defaults[len(given) :])  # the dispatcher leaves out trailing defaults
        if _transforms(given):
            self.below_autograd(keyset, arguments)  # for the sake of its checks
            return self.formula(arguments)
        if not (torch.is_grad_enabled() and torch._C._any_requires_grad(*given)):
            return self.below_autograd(keyset, arguments)
        flat = self.tensors(arguments)
        return _Recorded.apply(self, keyset, self.with_tensors(arguments, [None] * len(flat)), *flat)

    def below_autograd(self, keyset: torch._C.DispatchKeySet, arguments: Sequence[Any]) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            return self.overload.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    def formula(self, arguments: Sequence[Any]) -> Tensor:
        self.check_plain(arguments)
        # Among CPU tensors only weights can be of 16 bits, and what they are multiplied with is float32.
        narrow = (torch.float16, torch.bfloat16)
        flat = [
            value.float() if isinstance(value, Tensor) and value.is_cpu and value.dtype in narrow else value
            for value in self.tensors(arguments)
        ]
        return getattr(formulas, self.name)(*self.with_tensors(arguments, flat))

    def backward(self, grad_output: Tensor, *arguments_and_needs: Any) -> list[Tensor]:
        *arguments, needs_grad = arguments_and_needs
        flat = [
            value.detach().requires_grad_(needed) if isinstance(value, Tensor) else value
            for value, needed in zip(self.tensors(arguments), needs_grad, strict=True)
        ]
        wanted = [value for value, needed in zip(flat, needs_grad, strict=True) if needed]
        autocast_off = torch.autocast(grad_output.device.type, enabled=False)
        with _recording_gradients(), torch.enable_grad(), autocast_off:
            output = self.formula(self.with_tensors(arguments, flat))
            gradients = torch.autograd.grad(output, wanted, grad_output, materialize_grads=True)
        # An operator's outputs may share memory neither with its inputs nor with each other.
        return [gradient.clone(memory_format=torch.contiguous_format) for gradient in gradients]

    def fake_backward(self, grad_output: Tensor, *arguments_and_needs: Any) -> list[Tensor]:
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


class _Recorded(torch.autograd.Function):
    """A call of an operator in autograd's graph."""

    @staticmethod
    def forward(
        ctx: Any, operator: _Differentiable, keyset: torch._C.DispatchKeySet, rest: Sequence[Any], *flat: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(*flat)
        ctx.operator, ctx.rest = operator, rest
        return operator.below_autograd(keyset, operator.with_tensors(rest, flat))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        operator, needs_grad = ctx.operator, list(ctx.needs_input_grad[3:])
        compute = getattr(torch.ops.squeezebert, f"{operator.name}_backward").default
        arguments = operator.with_tensors(ctx.rest, ctx.saved_tensors)
        gradients = iter(compute(grad_output, *arguments, needs_grad))
        return None, None, None, *(next(gradients) if needed else None for needed in needs_grad)


def _transforms(arguments: Sequence[Any]) -> bool:
    """One of `torch.func`'s transforms differentiates, or an argument carries a tangent of forward mode."""
    transform = torch._C._functorch.peek_interpreter_stack()
    if transform is not None and transform.key() in _DERIVATIVES:
        return True
    if forward_ad._current_level < 0:
        return False
    flat = [item for value in arguments for item in (value if isinstance(value, (list, tuple)) else (value,))]
    return any(isinstance(item, Tensor) and forward_ad.unpack_dual(item).tangent is not None for item in flat)


def _recording_gradients() -> Any:
    """Lets autograd record inside an operator's body, where the dispatcher has switched it off for the call itself."""
    keys = torch._C.DispatchKey
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (keys.AutogradCPU, keys.AutogradCUDA, keys.AutogradOther):
        excluded = excluded.remove(key)
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)
