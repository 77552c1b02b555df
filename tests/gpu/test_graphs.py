"""The graphs behind optimize(model.cuda()): how many, who waits for whom, and somebody else's captures."""

from __future__ import annotations

import copy
import gc
import threading
from typing import Any

import pytest
import torch

from kernel_testing import DEVICE
from model_testing import MASKS, NUMPY_WARNINGS, TOKENS, inputs, real, small
from paths import binding_of
from squeezebert_kernels import optimize
from squeezebert_kernels.triton import forward, graph, turns
from squeezebert_kernels.triton.graph import MAX_GRAPHS
from tolerances import REFERENCE_PARITY

pytestmark = [NUMPY_WARNINGS, pytest.mark.usefixtures("optimize_here")]


class Streams:
    """Streams that queue nothing, and write down in which order they were used: (stream, "waits for" or "records", n).

    Event n is the n-th one that was recorded.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, str, int]] = []
        self.events = 0
        self.current = "a"
        monkeypatch.setattr(turns, "_current_stream", lambda device: _Stream(self, self.current))


class _Stream:
    def __init__(self, streams: Streams, name: str) -> None:
        self._streams, self._name = streams, name

    def record_event(self) -> _Event:
        self._streams.events += 1
        self._streams.log.append((self._name, "records", self._streams.events))
        return _Event(self._streams, self._streams.events)

    def wait_event(self, event: _Event) -> None:
        self._streams.log.append((self._name, "waits for", event.number))


class _Event:
    def __init__(self, streams: Streams, number: int) -> None:
        self._streams, self.number = streams, number

    def synchronize(self) -> None:
        self._streams.log.append(("the host", "waits for", self.number))


@pytest.mark.skipif(DEVICE.type == "cuda", reason="with streams that only pretend")
@torch.no_grad()
def test_requests_and_new_weights_take_turns_whatever_their_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    model, given = optimize(small("SqueezeBertModel"), dtype=torch.bfloat16), inputs(None)
    # packing, and the self-test
    assert streams.log == [("a", "records", 1), ("a", "waits for", 1), ("a", "records", 2)]
    del streams.log[:]
    for stream in "bb":
        streams.current = stream
        model(**given)
    assert streams.log == [("b", "waits for", 2), ("b", "records", 3), ("b", "waits for", 3), ("b", "records", 4)]
    del streams.log[:]
    model.encoder.layers[1].output.conv1d.weight.mul_(1.5)
    streams.current = "c"
    model(**given)
    refresh = [("c", "waits for", 4), ("c", "records", 5)]
    assert streams.log == [*refresh, ("c", "waits for", 5), ("c", "records", 6)]
    del streams.log[:]
    model(**inputs(MASKS["left"]))  # without a graph
    assert streams.log == [("c", "waits for", 6), ("c", "records", 7)]


@pytest.mark.skipif(DEVICE.type == "cuda", reason="with streams that only pretend")
@torch.no_grad()
def test_memory_is_given_back_after_its_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    model = optimize(small("SqueezeBertModel"), dtype=torch.bfloat16)
    model(**inputs(None))
    monkeypatch.setattr(graph, "MAX_GRAPHS", 1)
    before = len(streams.log)
    model(torch.ones(1, 3, dtype=torch.long))  # in the place of the first one's buffers
    assert streams.log[before:] == [("a", "waits for", 3), ("the host", "waits for", 3), ("a", "records", 4)]
    del streams.log[:]
    del model
    gc.collect()
    assert streams.log == [("the host", "waits for", 4)]


@torch.no_grad()
def test_a_mask_of_the_host_is_refused_by_name_inside_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = optimize(small("SqueezeBertModel")), inputs(MASKS["right"])
    model(**given)
    elsewhere = "cpu" if DEVICE.type == "cuda" else "meta"
    given["attention_mask"] = given["attention_mask"].to(elsewhere)
    message = (
        rf"attention_mask: expected a tensor on {DEVICE}.* while a CUDA graph is captured.*, got one on {elsewhere}"
    )
    if DEVICE.type != "cuda":
        monkeypatch.setattr(forward, "_is_capturing", lambda device: True)
        with pytest.raises(ValueError, match=message):
            model(**given)
        return
    with pytest.raises(ValueError, match=message), torch.cuda.graph(torch.cuda.CUDAGraph()):
        model(**given)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="of a capture that only pretends")
@torch.no_grad()
def test_nothing_is_let_go_of_inside_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that changed runs its original forward there; what was bound before serves again after it."""
    model, given = optimize(small("SqueezeBertModel"), dtype=torch.bfloat16), inputs(None)
    bound = binding_of(model)
    with monkeypatch.context() as capture:
        capture.setattr(forward, "_is_capturing", lambda device: True)
        for change in (_another_layer, _another_value):
            undo = change(model)
            expected = type(model).forward(model, **given).last_hidden_state
            assert torch.equal(model(**given).last_hidden_state, expected)
            undo()
    assert binding_of(model) is bound


def _another_layer(model: Any) -> Any:
    layer = model.encoder.layers[0]
    model.encoder.layers[0] = copy.deepcopy(layer)
    return lambda: model.encoder.layers.__setitem__(0, layer)


def _another_value(model: Any) -> Any:
    weight = model.encoder.layers[1].output.conv1d.weight
    weight.mul_(2)
    return lambda: weight.div_(2)


@pytest.mark.gpu
@torch.no_grad()
def test_a_call_on_another_stream_finds_new_weights_packed() -> None:
    """They are packed on this stream, behind long products; the call, on a stream of its own, has to wait for that."""
    model, given = optimize(small("SqueezeBertModel"), dtype=torch.bfloat16), inputs(None)
    before = model(**given).last_hidden_state
    big = torch.randn(8192, 8192, device=DEVICE)
    torch.cuda.synchronize()
    for _ in range(10):
        big = big @ big
    model.encoder.layers[1].output.conv1d.weight.mul_(1.5)
    binding_of(model)
    with torch.cuda.stream(torch.cuda.Stream()):
        after = model(**given).last_hidden_state
    torch.cuda.synchronize()
    assert torch.equal(after, model(**given).last_hidden_state)
    assert not torch.equal(after, before)


@pytest.mark.gpu
@pytest.mark.parametrize("mask", ["none", "right"])
@torch.no_grad()
def test_a_replay_waits_for_nothing(mask: str) -> None:
    """PyTorch is to raise where the host waits for the GPU. The mask is on the host: one on the GPU has to be read."""
    model, given = optimize(small("SqueezeBertModel"), dtype=torch.bfloat16), inputs(MASKS[mask])
    if mask != "none":
        given["attention_mask"] = given["attention_mask"].cpu()
    expected = model(**given).last_hidden_state
    torch.cuda.set_sync_debug_mode("error")
    try:
        hidden = model(**given).last_hidden_state
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(hidden, expected)


@pytest.mark.gpu
@torch.no_grad()
def test_the_cache_of_graphs_is_bounded() -> None:
    model = optimize(small("SqueezeBertModel"))
    for count in range(1, 2 * MAX_GRAPHS):
        model(torch.ones(count, 16, dtype=torch.long, device=DEVICE))
    graphs = binding_of(model).graphs
    assert 1 < len(graphs) <= MAX_GRAPHS


@pytest.mark.gpu
@torch.no_grad()
def test_tf32_has_graphs_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = optimize(small("SqueezeBertModel")), inputs(None)
    hidden = {}
    for allowed in (False, True, False):
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", allowed)
        now = model(**given).last_hidden_state
        assert torch.equal(now, hidden.setdefault(allowed, now))
    assert not torch.equal(hidden[False], hidden[True])
    assert len(binding_of(model).graphs) == 2


@pytest.mark.gpu
@torch.no_grad()
def test_inside_somebody_elses_capture_the_kernels_become_part_of_it() -> None:
    model = small("SqueezeBertModel")
    original = copy.deepcopy(model)
    optimize(model)
    given = inputs(MASKS["right"])
    model(**given)  # compiled and loaded before
    with torch.cuda.stream(torch.cuda.Stream()):
        binding_of(model)._padded(given, given["input_ids"], False)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = model(**given).last_hidden_state
    for _ in range(2):
        given["input_ids"].copy_(torch.randint(1, 61, (3, TOKENS)))
        graph.replay()
        where = real(given)
        theirs = original(**given).last_hidden_state
        torch.testing.assert_close(output.cpu()[where], theirs.cpu()[where], **REFERENCE_PARITY[torch.float32])


@pytest.mark.gpu
@torch.no_grad()
def test_threads_and_streams() -> None:
    model = optimize(small("SqueezeBertModel"))
    requests = [inputs(MASKS[name]) for name in ("none", "right", "holes")]
    expected = [model(**given).last_hidden_state for given in requests]
    wrong: list[int] = []

    def work(index: int) -> None:
        with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                if not torch.equal(model(**requests[index]).last_hidden_state, expected[index]):
                    wrong.append(index)

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
