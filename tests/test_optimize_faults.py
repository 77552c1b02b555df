"""Ways in which an optimized model was once wrong without a word: each is noticed now, or computed right."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from paths import binding_of, kernels, original, restored
from small_models import config_for, hf_model, padding_mask, randomize
from squeezebert_kernels import _native, explain, optimize, refresh, restore
from squeezebert_kernels.integration.packed import CHECK_VARIABLE
from tolerances import LOW_PRECISION_RATIO, REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]
BASES = ["SqueezeBertModel", "BertModel"]
# scaled_dot_product_attention has no forward-mode derivative, and no rule for vmap.
EAGER: dict[str, dict[str, Any]] = {"SqueezeBertModel": {}, "BertModel": {"attn_implementation": "eager"}}
IDS = torch.arange(1, 19).view(2, 9)
MASK = padding_mask([9, 4], 9)


def small(name: str, **fields: Any) -> Any:
    return hf_model(name, config_for(name, **fields))


def layers_of(model: Any) -> Any:
    return model.encoder.layers if hasattr(model.encoder, "layers") else model.encoder.layer


def query_of(layer: Any) -> Any:
    return layer.attention.query if hasattr(layer.attention, "query") else layer.attention.self.query


def set_query(layer: Any, module: nn.Module) -> None:
    owner = layer.attention if hasattr(layer.attention, "query") else layer.attention.self
    owner.query = module


# --- The self-test, and what is patched ------------------------------------------------------------------------------


def _twice(self: Any, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
    return type(self)._once(self, hidden_states, input_tensor) * 2.0


@contextmanager
def patched_block(monkeypatch: pytest.MonkeyPatch, model: Any) -> Iterator[None]:
    """The class of a block computes something else, as after `modeling_bert.BertSelfOutput.forward = mine`."""
    layer = layers_of(model)[0]
    kind = type(layer.output)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "_once", kind.forward, raising=False)
        patch.setattr(kind, "forward", _twice)
        yield


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_a_class_patched_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(name)
    with patched_block(monkeypatch, model):
        expected = model(IDS).last_hidden_state
        with pytest.warns(UserWarning, match=r"self-test: the kernels differ from the model by \d.*allowed"):
            optimize(model)
        with original("self-test"):
            assert torch.equal(model(IDS).last_hidden_state, expected)
    with kernels():
        model(IDS)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_a_class_patched_after(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = optimize(small(name))
    with patched_block(monkeypatch, model):
        with original("self-test"):
            patched = model(IDS).last_hidden_state
        assert torch.equal(patched, restore(model)(IDS).last_hidden_state)


@torch.no_grad()
def test_a_function_of_the_module_patched_after(monkeypatch: pytest.MonkeyPatch) -> None:
    model = optimize(small("BertModel"))
    modeling = pytest.importorskip("transformers.models.bert.modeling_bert")

    def chunked(function: Any, size: int, dim: int, hidden_states: Tensor) -> Tensor:
        return function(hidden_states) + 1.0

    monkeypatch.setattr(modeling, "apply_chunking_to_forward", chunked)
    with original("self-test"):
        assert torch.equal(model(IDS).last_hidden_state, restore(model)(IDS).last_hidden_state)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_a_block_of_another_class_after(name: str) -> None:
    model = optimize(small(name))
    block = layers_of(model)[1].output

    class Other(type(block)):  # type: ignore[misc]
        def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
            return super().forward(hidden_states, input_tensor) + 1.0

    block.__class__ = Other
    with original("is a Other"):
        assert torch.equal(model(IDS).last_hidden_state, restore(model)(IDS).last_hidden_state)


@pytest.mark.parametrize("name", BASES)
def test_the_self_test_leaves_no_trace(name: str) -> None:
    """It calls no hook, draws no random number, and neither training mode nor gradients change."""
    model = small(name).train()
    called: list[Any] = []
    for module in model.modules():
        module.register_forward_hook(lambda *args: called.append(args))
        module.register_forward_pre_hook(lambda *args: called.append(args))
    handle = nn.modules.module.register_module_forward_hook(lambda *args: called.append(args))
    state = torch.get_rng_state()
    optimize(model)
    handle.remove()
    assert not called
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_a_declined_model_is_not_tested_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("BertModel", hidden_act="relu")
    with pytest.warns(UserWarning, match="exact GELU"):
        optimize(model)
    monkeypatch.setattr("squeezebert_kernels.integration.reading.Reading.read", None)
    with original("exact GELU"):
        model(IDS)


# --- Weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_writes_that_pytorch_does_not_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads zeroed through `.data`: refresh notices, and the check of every byte says who forgot to."""
    monkeypatch.setenv(CHECK_VARIABLE, "1")
    model = optimize(small(name))
    before = model(IDS).last_hidden_state
    query_of(layers_of(model)[1]).weight.data[:36] = 0
    with pytest.raises(
        RuntimeError, match=r"query: the weight was changed .*call squeezebert_kernels.refresh\(model\)"
    ):
        model(IDS)
    refresh(model)
    with kernels():
        after = model(IDS).last_hidden_state
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, restore(model)(IDS).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_an_address_that_comes_back(name: str) -> None:
    """A storage freed and its address used again for other values, between two calls."""
    model = optimize(small(name))
    weight = query_of(layers_of(model)[1]).weight
    before = model(IDS).last_hidden_state
    first = weight.data_ptr()
    for _ in range(8):
        weight.data = weight.data * 1.5
    assert weight.data_ptr() != first
    with kernels():
        assert not torch.equal(model(IDS).last_hidden_state, before)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_a_write_while_packing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread writes a weight just after it was packed: the next call packs it again."""
    model = optimize(small(name))
    weight = query_of(layers_of(model)[1]).weight
    packed = binding_of(model).packed
    pack = type(packed)._pack

    def interrupted(self: Any, indices: Any) -> None:
        pack(self, indices)
        weight.mul_(2.0)

    weight.mul_(1.5)
    with monkeypatch.context() as patch:
        patch.setattr(type(packed), "_pack", interrupted)
        model(IDS)
    with kernels():
        ours = model(IDS).last_hidden_state
    torch.testing.assert_close(ours, restore(model)(IDS).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("name", BASES)
def test_trained_between_evaluations_in_inference_mode(name: str) -> None:
    """Packs first made in inference mode are written again outside of it."""
    model = small(name)
    with torch.inference_mode():
        first = optimize(model)(IDS).last_hidden_state
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(IDS).last_hidden_state.pow(2).mean().backward()
    optimizer.step()
    model.eval()
    with torch.no_grad(), kernels():
        second = model(IDS).last_hidden_state
    assert not torch.equal(first, second)
    with torch.no_grad():
        torch.testing.assert_close(second, restore(model)(IDS).last_hidden_state, **CLOSE)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_only_what_changed_is_packed_and_in_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = optimize(small(name))
    packed = binding_of(model).packed
    seen: list[str] = []
    form = type(packed)._packed_form

    def counted(self: Any, linear: Any) -> Any:
        seen.append(linear.name)
        return form(self, linear)

    monkeypatch.setattr(type(packed), "_packed_form", counted)
    query_of(layers_of(model)[1]).weight.mul_(2.0)
    model(IDS)
    assert len(seen) == 1
    seen.clear()
    set_query(layers_of(model)[0], copy.deepcopy(query_of(layers_of(model)[0])))
    with kernels():
        model(IDS)
    assert len(seen) == 1
    assert binding_of(model).packed.buffer is packed.buffer


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_max_norm_set_afterwards(name: str) -> None:
    model = optimize(small(name))
    model(IDS)
    model.embeddings.word_embeddings.max_norm = 0.1
    with original("max_norm"):
        ours = model(IDS).last_hidden_state
    torch.testing.assert_close(ours, restore(model)(IDS).last_hidden_state, **CLOSE)


# --- Released weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_released_and_loaded(name: str) -> None:
    """What was loaded is what state_dict gives, before and after the next call."""
    model, other = optimize(small(name), release_weights=True), small(name)
    randomize(other)
    model.load_state_dict(other.state_dict())
    for _ in range(2):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
        with kernels():
            torch.testing.assert_close(model(IDS)[0], other(IDS)[0], **CLOSE)


@pytest.mark.parametrize("move", [lambda m: m.double(), lambda m: m.to(torch.bfloat16), lambda m: m.float()])
@torch.no_grad()
def test_released_and_moved(move: Callable[[Any], Any]) -> None:
    """The weights are back for good; a move that moves nothing leaves them released."""
    model, plain = optimize(small("BertModel"), release_weights=True), small("BertModel")
    plain.load_state_dict(model.state_dict())
    move(model)
    move(plain)
    weight = query_of(layers_of(model)[0]).weight
    assert weight.isnan().all() == (weight.dtype == torch.float32)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in model.state_dict().items())
    model(IDS)


@pytest.mark.parametrize("third", [restore, optimize, lambda model: optimize(model, release_weights=True)])
def test_released_while_threads_call(third: Callable[[Any], Any]) -> None:
    model = optimize(small("BertModel"), release_weights=True)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    done = threading.Event()
    wrong: list[Any] = []
    with torch.no_grad():
        expected = model(IDS).last_hidden_state

    @torch.no_grad()
    def call() -> None:
        while not done.is_set():
            if not torch.allclose(model(IDS).last_hidden_state, expected, **CLOSE):
                wrong.append(True)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        third(model)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(torch.equal(value, state[key]) for key, value in restore(model).state_dict().items())


@torch.no_grad()
def test_layers_shared_with_another_model_are_not_released() -> None:
    model, other = small("BertModel"), small("BertModel")
    other.encoder.layer[0] = model.encoder.layer[0]
    with pytest.raises(ValueError, match=r"release_weights: expected a BertModel whose modules are its own, got one"):
        optimize(model, release_weights=True)
    with restored():
        assert not model(IDS).last_hidden_state.isnan().any()
        assert not other(IDS).last_hidden_state.isnan().any()


@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertForMaskedLM"])
@torch.no_grad()
def test_copies_of_released_models_have_their_weights(name: str) -> None:
    model = optimize(small(name), release_weights=True)
    twin = copy.deepcopy(model)
    assert not any(parameter.isnan().any() for parameter in twin.parameters())
    with kernels():
        assert torch.equal(twin(IDS).logits, model(IDS).logits)
    restore(twin)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in model.state_dict().items())


def test_restored_in_inference_mode() -> None:
    model = optimize(small("BertModel"), release_weights=True)
    with torch.inference_mode():
        restore(model)
    model.train()(IDS).last_hidden_state.sum().backward()
    assert all(query_of(layer).weight.grad is not None for layer in layers_of(model))


@torch.no_grad()
def test_a_failed_optimize_changes_nothing() -> None:
    model = small("BertModel")
    weight = query_of(layers_of(model)[1]).weight
    value = weight[0, 0].clone()
    weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="cannot be released"):
        optimize(model, release_weights=True)
    weight[0, 0] = value
    with restored():
        model(IDS)
    optimize(model)
    with pytest.raises(ValueError, match="dtype"):
        optimize(model, dtype=torch.bfloat16)
    with kernels():
        model(IDS)


# --- Requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertForSequenceClassification"])
@torch.no_grad()
def test_labels_as_the_trainer_passes_them(name: str) -> None:
    """Trainer.evaluate adds num_items_in_batch for heads that take keywords (transformers 5)."""
    model = small(name)
    request = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.tensor([0, 1])}
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(model.forward).parameters.values()):
        request["num_items_in_batch"] = 2  # type: ignore[assignment]
    expected = model(**request)
    optimize(model)
    with kernels():
        output = model(**request)
    torch.testing.assert_close(output.loss, expected.loss, **CLOSE)
    torch.testing.assert_close(output.logits, expected.logits, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.int16])
@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_masks_of_unusual_dtypes(name: str, dtype: torch.dtype) -> None:
    model = small(name)
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    optimize(model)
    with kernels():
        ours = model(IDS, attention_mask=MASK.to(dtype)).last_hidden_state
    torch.testing.assert_close(ours[MASK.bool()], expected[MASK.bool()], **CLOSE)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_positions_of_one_dimension(name: str) -> None:
    model, positions = small(name), torch.arange(3, 12)
    expected = model(IDS, attention_mask=MASK, position_ids=positions[None]).last_hidden_state
    optimize(model)
    with kernels():
        ours = model(IDS, attention_mask=MASK, position_ids=positions).last_hidden_state
    torch.testing.assert_close(ours[MASK.bool()], expected[MASK.bool()], **CLOSE)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"input_ids": torch.where(MASK.bool(), IDS, 61)}, "input_ids: expected 0 to 60, got 61"),
        ({"input_ids": torch.where(MASK.bool(), IDS, -1)}, "input_ids: expected 0 to 60, got -1"),
        ({"token_type_ids": 2 * (1 - MASK)}, "token_type_ids: expected 0 to 1, got 2"),
        ({"position_ids": 24 * (1 - MASK)}, "position_ids: expected 0 to 23, got 24"),
    ],
)
@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_what_is_wrong_at_padded_positions(name: str, argument: dict[str, Tensor], message: str) -> None:
    model = optimize(small(name))
    with pytest.raises(IndexError, match=message):
        model(**{"input_ids": IDS, "attention_mask": MASK, **argument})
    with pytest.raises(ValueError, match="input_ids: expected at most 24 tokens"):
        model(torch.ones(1, 25, dtype=torch.long), attention_mask=padding_mask([4], 25))


@pytest.mark.parametrize("name", BASES)
def test_forward_mode_differentiation(name: str) -> None:
    model = small(name, **EAGER[name]).requires_grad_(False)
    embeds, tangent = torch.randn(2, 9, 48), torch.randn(2, 9, 48)

    def tangent_of() -> Any:
        with forward_ad.dual_level():
            output = model(inputs_embeds=forward_ad.make_dual(embeds, tangent)).pooler_output
            return forward_ad.unpack_dual(output).tangent

    expected = tangent_of()
    optimize(model)
    assert torch.equal(tangent_of(), expected)


@pytest.mark.parametrize("name", BASES)
def test_transforms_of_functions(name: str) -> None:
    model = small(name, **EAGER[name]).requires_grad_(False)
    embeds = torch.randn(2, 1, 9, 48)

    def pooled(x: Tensor) -> Tensor:
        return model(inputs_embeds=x).pooler_output

    expected = torch.func.jvp(pooled, (embeds[0],), (embeds[1],)), torch.func.vmap(pooled)(embeds)
    optimize(model)
    ours = torch.func.jvp(pooled, (embeds[0],), (embeds[1],)), torch.func.vmap(pooled)(embeds)
    torch.testing.assert_close(ours, expected)


@torch.no_grad()
def test_make_fx_bakes_nothing_in() -> None:
    """It traces the original path, all of it."""
    model = optimize(small("BertModel", **EAGER["BertModel"]))
    bias = torch.zeros(2, 1, 9, 9)
    with original("TorchDispatchMode"):
        graph = make_fx(lambda ids: model(ids, attention_mask=bias).pooler_output)(IDS)
    assert not [node for node in graph.graph.nodes if "squeezebert" in str(node.target)]
    torch.testing.assert_close(graph(IDS), model(IDS).pooler_output, **CLOSE)


@torch.no_grad()
def test_masks_that_are_no_tensors() -> None:
    model = optimize(small("BertModel"))
    with original("attention_mask: a list"), pytest.raises(Exception, match=r".+"):
        model(IDS, attention_mask=MASK.tolist())


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_padding_kept(name: str) -> None:
    model = small(name)
    expected = model(IDS, attention_mask=MASK)
    optimize(model, keep_padding=True)
    with kernels():
        ours = model(IDS, attention_mask=MASK)
    torch.testing.assert_close(ours.last_hidden_state, expected.last_hidden_state, **CLOSE)
    torch.testing.assert_close(ours.pooler_output, expected.pooler_output, **CLOSE)
    assert torch.equal(copy.deepcopy(model)(IDS, attention_mask=MASK)[0], ours[0])


# --- Other dtypes, other modules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("compute", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertForTokenClassification"])
@torch.no_grad()
def test_half_precision_checkpoints(name: str, dtype: torch.dtype, compute: torch.dtype) -> None:
    """Computed in float32 (or float16, where asked), returned in the model's dtype, so that its head fits."""
    model = small(name).to(dtype)
    exact = copy.deepcopy(model).double()(IDS, attention_mask=MASK).logits
    theirs = model(IDS, attention_mask=MASK).logits
    optimize(model, dtype=compute)
    with kernels():
        ours = model(IDS, attention_mask=MASK).logits
    assert ours.dtype == dtype
    where = MASK.bool() if ours.dim() == 3 else slice(None)
    error = (theirs[where].double() - exact[where]).abs().max()
    assert (ours[where].double() - exact[where]).abs().max() <= LOW_PRECISION_RATIO * error
    bias = query_of(layers_of(model.base_model)[0]).bias
    bias.add_(1.0)  # a copy of it is what the kernels read
    with kernels():
        assert not torch.equal(model(IDS, attention_mask=MASK).logits, ours)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_converted_after_optimize(name: str) -> None:
    model = optimize(small(name)).to(torch.bfloat16)
    with kernels():
        assert model(IDS).last_hidden_state.dtype == torch.bfloat16
    model.float()
    with kernels():
        ours = model(IDS).last_hidden_state
    torch.testing.assert_close(ours, restore(model)(IDS).last_hidden_state, **CLOSE)


class LoRA(nn.Module):
    """A linear layer and a low-rank update of its output, as peft's."""

    def __init__(self, base_layer: Any) -> None:
        super().__init__()
        self.base_layer = base_layer
        channels, width = base_layer.weight.shape[0], base_layer.weight.shape[1] * getattr(base_layer, "groups", 1)
        self.down = nn.Parameter(torch.randn(2, width) * 0.3)
        self.up = nn.Parameter(torch.randn(channels, 2) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        update = self.up @ self.down
        added = update @ x if isinstance(self.base_layer, nn.Conv1d) else x @ update.t()
        return self.base_layer(x) + added


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("which", [[0], [1], [0, 1]])
@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_lora_runs_between_the_kernels(name: str, which: list[int], late: bool) -> None:
    model = small(name)
    if late:
        optimize(model)(IDS)
    for index in which:
        set_query(layers_of(model)[index], LoRA(query_of(layers_of(model)[index])).eval())
    expected = restore(copy.deepcopy(model))(IDS, attention_mask=MASK)
    if not late:
        optimize(model)
    with kernels():
        ours = model(IDS, attention_mask=MASK)
    torch.testing.assert_close(ours.last_hidden_state[MASK.bool()], expected.last_hidden_state[MASK.bool()], **CLOSE)
    torch.testing.assert_close(ours.pooler_output, expected.pooler_output, **CLOSE)
    assert "query is a LoRA" in str(explain(model))
    assert explain(model).served
    for index in which:
        query_of(layers_of(model)[index]).up.add_(0.5)
    with kernels():
        changed = model(IDS, attention_mask=MASK).pooler_output
    torch.testing.assert_close(changed, restore(model)(IDS, attention_mask=MASK).pooler_output, **CLOSE)


@pytest.mark.filterwarnings("ignore:.*quantiz.*:DeprecationWarning")
@torch.no_grad()
def test_a_head_over_layers_of_which_one_is_quantized() -> None:
    model = small("BertForSequenceClassification")
    layer = model.bert.encoder.layer[1]
    layer.output.dense = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer.output.dense), {nn.Linear})[0]
    expected = model(IDS, attention_mask=MASK).logits
    optimize(model)
    with kernels():
        torch.testing.assert_close(model(IDS, attention_mask=MASK).logits, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_optimized_in_training_mode(name: str, dtype: torch.dtype) -> None:
    """With a linear that drops out and has hooks: the self-test compares both paths without."""
    model = small(name)
    set_query(layers_of(model)[1], nn.Sequential(query_of(layers_of(model)[1]), nn.Dropout(0.5)))
    model.to(dtype).train()
    called: list[Any] = []
    query_of(layers_of(model)[1])[0].register_forward_hook(lambda *args: called.append(args))
    optimize(model)
    assert not called
    model.eval()
    with torch.no_grad(), kernels():
        model(IDS)
    assert called


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_parameters_converted_one_by_one(name: str) -> None:
    model = optimize(small(name))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    with kernels():
        assert model(IDS).last_hidden_state.dtype == torch.bfloat16
    model.encoder.double()
    with original("float64"), pytest.raises(RuntimeError):
        model(IDS)
    model.encoder.to(torch.bfloat16)
    with kernels():
        model(IDS)


@torch.no_grad()
def test_a_model_that_failed_the_self_test_is_tested_again_when_its_weights_change() -> None:
    model = small("BertModel")
    weight = query_of(layers_of(model)[1]).weight
    weight[3, 5] = torch.inf
    with pytest.warns(UserWarning, match="self-test"):
        optimize(model)
    weight[3, 5] = 0.1
    with kernels():
        model(IDS)


@torch.no_grad()
def test_refreshed_while_released() -> None:
    model = optimize(small("BertModel"), release_weights=True)
    expected = model(IDS).last_hidden_state
    with kernels():
        assert torch.equal(refresh(model)(IDS).last_hidden_state, expected)


@torch.no_grad()
def test_layers_of_different_groups() -> None:
    model, other = small("SqueezeBertModel"), hf_model("SqueezeBertModel", config_for("Squeeze", groups="dense"))
    model.encoder.layers[1] = other.encoder.layers[1]
    expected = model(IDS, attention_mask=MASK)
    optimize(model)
    with kernels():
        ours = model(IDS, attention_mask=MASK)
    torch.testing.assert_close(ours.pooler_output, expected.pooler_output, **CLOSE)


@torch.no_grad()
def test_where_only_scalar_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "isas", lambda: ["scalar"])
    monkeypatch.delenv("SQUEEZEBERT_FORCE_ISA", raising=False)
    model = small("BertModel")
    with pytest.warns(UserWarning, match="no SIMD kernels"):
        optimize(model)
    with restored():
        model(IDS)
    monkeypatch.setenv("SQUEEZEBERT_FORCE_ISA", "scalar")
    optimize(model)
    with kernels():
        model(IDS)


@pytest.mark.parametrize("release", [False, True])
def test_memory_of_optimize(release: bool) -> None:
    """At its peak hardly more than the packed weights, beside the model."""
    resource = pytest.importorskip("resource")
    fields = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    model = small("BertModel", **fields)
    with torch.no_grad():
        model(IDS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    optimize(model, release_weights=release)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 1.1 * binding_of(model).packed.buffer.nbytes
