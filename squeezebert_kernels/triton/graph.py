"""A whole model as CUDA graphs, one for each bucket of shapes, in a cache of bounded size.

A graph replays the same launches on the same memory. So a request is copied into buffers of its bucket's size, whose
rows and sequences beyond the request's own belong to nobody, the graph is replayed, and its outputs are read before the
next replay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import embedding_layer_norm, encoder, grouped_conv1x1, tuning
from .arguments import Arguments, Layer, Linear, Mask, Rows, Sequences
from .bad_ids import BadIds, launches_block
from .encoder_layer import check_layers
from .turns import Turns

MAX_GRAPHS = 32
# Lengths are rounded up to this many tokens: the queries of a program.
LENGTH_STEP = 64

# Rows, and the pooled output of models that have one.
Outputs = tuple[Tensor, Tensor | None]
Read = Callable[[Tensor, Tensor | None], Outputs]


@dataclass(frozen=True)
class Model:
    """A model's weights and numbers, as torch.ops.squeezebert.embedding_layer_norm, encoder and grouped_conv1x1 take
    them."""

    embedding: tuple[Any, ...]
    params: list[Tensor]
    pooler: tuple[Tensor, Tensor] | None
    num_heads: int
    groups: list[int]
    eps: float


@dataclass(frozen=True)
class Request:
    """Packed tokens. ids, types (or None), positions: [T]. positions None: 0 to S - 1 in each of [N, S].

    lengths: (N, S), or cu_seqlens, int32 [N + 1] on the host. first_token: only each sequence's first token is wanted.
    """

    ids: Any
    types: Tensor | None
    positions: Tensor | None
    lengths: tuple[int, int] | Tensor
    first_token: bool

    def offsets(self) -> Tensor:
        if isinstance(self.lengths, Tensor):
            return self.lengths
        count, length = self.lengths
        return torch.arange(count + 1, dtype=torch.int32) * length

    @property
    def sequences(self) -> int:
        return self.lengths.shape[0] - 1 if isinstance(self.lengths, Tensor) else self.lengths[0]

    @property
    def longest(self) -> int:
        return int(self.lengths.diff().max()) if isinstance(self.lengths, Tensor) else self.lengths[1]


@dataclass(frozen=True)
class Bucket:
    """The shapes that one graph serves: up to so many tokens, sequences, and tokens in a sequence."""

    tokens: int
    sequences: int
    longest: int
    first_token: bool


def bucket_of(request: Request) -> Bucket:
    """The smallest bucket that holds the request."""
    return Bucket(
        tokens=_round_up(int(request.ids.numel())),
        sequences=1 << (request.sequences - 1).bit_length(),
        longest=-(-request.longest // LENGTH_STEP) * LENGTH_STEP,
        first_token=request.first_token,
    )


def _round_up(count: int) -> int:
    """To one of eight steps between powers of two, and to 16: at most an eighth is computed in vain."""
    step = max(16, (1 << (count - 1).bit_length()) // 16)
    return -(-count // step) * step


class Graphs:
    """The graphs of one model, whose memory `turns` orders. Safe to use from several threads and streams."""

    def __init__(self, model: Model, turns: Turns) -> None:
        self._model, self._turns = model, turns
        self._device = model.embedding[0].device
        self._bad_ids = BadIds(self._device, [table.shape[0] for table in model.embedding[:3]])
        # By bucket and arithmetic: tf32 may be allowed for one request and not for the next.
        self._graphs: OrderedDict[tuple[Bucket, str], _Graph] = OrderedDict()
        # Graphs follow each other, so they share memory: of one pool, which keeps the memory of each stream apart.
        self._pool: Any = None
        self._stream: Any = None

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, request: Request, read: Read) -> Outputs:
        """What `read` makes of the rows [T, C] (or [N, C], where first_token) and the pooled output [N, C].

        `read` has to copy what it returns: the next request computes on the same memory. Raises IndexError for an id
        outside its table, of an earlier request (see `BadIds`).
        """
        with self._turn():
            return read(*self._find(bucket_of(request)).run(request))

    def launch(self, *request: Any) -> Outputs:
        """`launch_model` of this request, without a graph, in its turn, and with the errors of `run`."""
        with self._turn():
            return launch_model(self._model, self._bad_ids.found, *request)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._turns.next():
            self._raise_for_bad_ids("an earlier call, whose output is NaN there (CUDA_LAUNCH_BLOCKING=1 tells at once)")
            yield
            if launches_block():
                self._bad_ids.wait()
                self._raise_for_bad_ids("this call")

    def _raise_for_bad_ids(self, call: str) -> None:
        if self._bad_ids.any():
            for graph in self._graphs.values():
                graph.forget()
            self._bad_ids.fail(call)

    def _find(self, bucket: Bucket) -> _Graph:
        key = (bucket, tuning.arithmetic(self._model.embedding[0].dtype))
        graph = self._graphs.get(key)
        if graph is None:
            if len(self._graphs) >= MAX_GRAPHS:
                self._turns.wait()  # its buffers go back to the stream that made them, maybe not this one
                self._graphs.popitem(last=False)
            graph = _Graph(self._model, bucket, self._bad_ids.found)
            if self._device.type == "cuda":  # and not Triton's interpreter, in tests
                if self._pool is None:
                    self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(self._device)
                graph.capture(self._pool, self._stream)
            self._graphs[key] = graph
        self._graphs.move_to_end(key)
        return graph


class _Graph:
    """The buffers of one bucket, and the graph that computes on them."""

    def __init__(self, model: Model, bucket: Bucket, problems: Tensor) -> None:
        self._model, self._bucket, self._problems = model, bucket, problems
        device = model.embedding[0].device
        # ids, types and positions of each token: what was never written is row 0 of each table.
        self._tokens = torch.zeros(3, bucket.tokens, dtype=torch.int64, device=device)
        self._offsets = torch.zeros(bucket.sequences + 1, dtype=torch.int32, device=device)
        self._layout: tuple[int, int] | None = None  # (N, S), if that is what positions and offsets now say
        self._typed = False
        self._graph: Any = None
        self._outputs: Outputs | None = None

    def capture(self, pool: Any, stream: Any) -> None:
        """Records the launches. They are run once before, so that nothing is compiled or loaded meanwhile."""
        device = self._tokens.device
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self._launch()
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may go on with their own work meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._outputs = self._launch()

    def run(self, request: Request) -> Outputs:
        self._fill(request)
        if self._graph is None:
            self._outputs = self._launch()
        else:
            self._graph.replay()
        assert self._outputs is not None
        rows, pooled = self._outputs
        count = request.sequences if request.first_token else request.ids.numel()
        return rows[:count], None if pooled is None else pooled[: request.sequences]

    def forget(self) -> None:
        """Clears the ids of earlier requests, of which some may lie beyond the next request's own."""
        self._tokens.zero_()
        self._layout = None

    def _launch(self) -> Outputs:
        ids, types, positions = self._tokens
        lengths = Sequences(self._bucket.sequences, self._bucket.longest, self._offsets)
        first_token = self._bucket.first_token
        return launch_model(self._model, self._problems, ids, types, positions, lengths, None, first_token)

    def _fill(self, request: Request) -> None:
        count = request.ids.numel()
        ids, types, positions = self._tokens
        ids[:count].copy_(request.ids)
        if request.types is not None:
            types[:count].copy_(request.types)
        elif self._typed:
            types.zero_()
        self._typed = request.types is not None
        layout = request.lengths if not isinstance(request.lengths, Tensor) and request.positions is None else None
        if layout is not None and layout == self._layout:
            return
        self._layout = None  # until both are written
        if request.positions is not None:
            positions[:count].copy_(request.positions)
        else:
            assert not isinstance(request.lengths, Tensor)
            positions[:count] = torch.arange(request.lengths[1], device=positions.device).repeat(request.lengths[0])
        # Sequences beyond the request's own are empty.
        offsets = torch.full((self._bucket.sequences + 1,), count, dtype=torch.int32)
        offsets[: request.sequences + 1] = request.offsets()
        if self._offsets.is_cuda:
            offsets = offsets.pin_memory()
        self._offsets.copy_(offsets, non_blocking=True)
        self._layout = layout


def launch_model(
    model: Model,
    problems: Tensor,
    ids: Any,
    types: Tensor | None,
    positions: Tensor | None,
    lengths: Sequences | tuple[int, int],
    mask: Tensor | None,
    first_token: bool,
) -> Outputs:
    """Launches embeddings, encoder and pooler, and reads nothing from the device: rows [T, C] ([N, C], where
    first_token) and the pooled output [N, C].

    problems: as embedding_layer_norm.run takes them. lengths: sequences, or (N, S). positions None: 0 to S - 1. mask:
    boolean, broadcasts to [N, heads, S, S].
    """
    sequences = lengths if isinstance(lengths, Sequences) else Sequences(*lengths, offsets=None)
    words = model.embedding[0]
    arguments = Arguments("encoder", "input", words)
    layers = _layers(model, arguments)
    tables = (model.embedding[0], model.embedding[1], model.embedding[2])
    names = ("ln_weight", "ln_bias")
    norm = arguments.norm(*names, (model.embedding[3], model.embedding[4]), model.embedding[5], words.shape[1])
    checked = (
        Mask()
        if mask is None
        else arguments.mask(mask, sequences.count, model.num_heads, sequences.longest, sequences.longest)
    )
    count, channels = ids.numel(), words.shape[1]
    embedded = words.new_empty(count, channels)
    given = (ids, types, positions)
    embedding_layer_norm.run(given, tables, norm, sequences.longest, embedded, problems)
    rows = words.new_empty(sequences.count if first_token else count, channels)
    encoder.run(
        Rows(embedded, count, channels, channels), sequences, layers, model.num_heads, checked, rows, first_token
    )
    if model.pooler is None:
        return rows, None
    first = rows if first_token else _first_rows(rows, sequences)
    dense = arguments.linear(("pooler.weight", "pooler.bias", "groups"), *model.pooler, 1, channels)
    return rows, _pool(first, dense)


def _layers(model: Model, arguments: Arguments) -> list[Layer]:
    channels = model.embedding[0].shape[1]
    return check_layers(arguments, model.params, model.num_heads, model.groups, model.eps, channels)


def _first_rows(rows: Tensor, sequences: Sequences) -> Tensor:
    if sequences.offsets is None:
        return rows.view(sequences.count, sequences.longest, -1)[:, 0].contiguous()
    # The empty sequences beyond a request's own begin where the last row may already be behind.
    return rows.index_select(0, sequences.offsets[:-1].clamp(max=rows.shape[0] - 1))


def _pool(first: Tensor, dense: Linear) -> Tensor:
    pooled = first.new_empty(first.shape[0], dense.out_channels)
    grouped_conv1x1.run(Rows(first, first.shape[0], first.shape[1], first.shape[1]), dense, pooled)
    return pooled.tanh_()
