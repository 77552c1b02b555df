"""The main job: sets up the competitors, lets them take turns, and reports."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from squeezebert_kernels.machine import describe
from squeezebert_kernels.nn.tokenizer import load_tokenizer

from .contest import Contest, Peer
from .measure import measure
from .model import load_model
from .peers import ALWAYS, PEERS, REFERENCE
from .plot import check_plot, save_plot
from .precisions import check_dtypes
from .report import markdown, print_report
from .results import Results
from .timing import measure_bandwidth
from .workload import FIXED_SHAPES, Workload, fixed_shape, one_by_one, read_text, sentence_batch


@dataclass(frozen=True)
class Options:
    """What the command line asks for; None leaves a choice to the program.

    batch, tokens: one fixed shape in place of the usual ones. sentences: how many of the text's make its batch.
    seconds: the whole run should end by then, set-up included; it takes longer when two rounds of everything do.
    dtypes: the formats to compare in; what they are held against in float32 always runs. peers: names, None for all.
    """

    model: str | None = None
    text: Path | None = None
    batch: int | None = None
    tokens: int | None = None
    sentences: int = 8
    threads: int = 1
    dtypes: tuple[str, ...] = ("float32",)
    seconds: float = 105.0
    peers: tuple[str, ...] | None = None
    json: Path | None = None
    plot: Path | None = None
    markdown: Path | None = None
    command: str = "python -m squeezebert_kernels compare"


def compare(options: Options, console: Console, model: Any | None = None) -> Results:
    """Runs the comparison, prints it, and writes the files asked for.

    model: a Hugging Face base model in eval mode to compare on, instead of loading `options.model`.

    Raises ValueError for options that cannot be, ImportError when a package that everything needs is missing.
    """
    deadline = time.perf_counter() + options.seconds
    check_dtypes(options.dtypes)
    for name in ("threads", "sentences"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(options, name)}")
    if not 0.0 <= options.seconds < math.inf:
        raise ValueError(f"seconds: expected a finite number of at least 0, got {options.seconds}")
    for name in ("json", "plot", "markdown"):
        path = getattr(options, name)
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise ValueError(f"{name}: expected a file in a folder that exists, got {path}")
    if options.plot:
        check_plot(options.plot)
    with _torch_threads(options.threads), tempfile.TemporaryDirectory() as folder:
        machine = describe()
        console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
        model = load_model(options.model) if model is None else model
        workloads = make_workloads(options, model.config)
        contest = Contest(model, Path(folder), options.threads, one_by_one(workloads[-1]))
        with _progress(console) as progress:
            peers, skipped = set_up(contest, options.dtypes, options.peers, progress)
            rows = measure(contest, peers, workloads, deadline, progress)
        bandwidth = measure_bandwidth(options.threads)
    results = Results(
        machine=machine,
        model=options.model or f"{model.config.model_type} with seeded weights",
        dtypes=options.dtypes,
        threads=options.threads,
        command=options.command,
        date=datetime.datetime.now().astimezone().date().isoformat(),
        bandwidth_gbytes=bandwidth,
        lengths={workload.name: workload.lengths for workload in workloads},
        skipped=skipped,
        rows=tuple(rows),
    )
    print_report(results, console)
    write_files(results, options, console)
    return results


def make_workloads(options: Options, config: Any) -> list[Workload]:
    """The fixed shapes that fit the model's positions (or the one asked for), then the sentences of the text."""
    tokenizer = load_tokenizer(options.model)
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise ValueError(
            f"model: expected a vocabulary of at least {tokenizer.get_vocab_size()} (the tokenizer's), "
            f"got {config.vocab_size}"
        )
    text = read_text(options.text)
    positions = config.max_position_embeddings
    if options.batch is None and options.tokens is None:
        shapes = [(batch, tokens) for batch, tokens in FIXED_SHAPES if tokens <= positions]
    else:
        batch = 1 if options.batch is None else options.batch
        shapes = [(batch, min(128, positions) if options.tokens is None else options.tokens)]
        if shapes[0][1] > positions:
            raise ValueError(f"seq: expected at most {positions} tokens (the model's positions), got {shapes[0][1]}")
    fixed = [fixed_shape(tokenizer, text, batch, tokens) for batch, tokens in shapes]
    return [*fixed, sentence_batch(tokenizer, text, options.sentences, positions)]


def set_up(
    contest: Contest, dtypes: tuple[str, ...], names: tuple[str, ...] | None, progress: Progress
) -> tuple[list[Peer], dict[str, str]]:
    """Makes every peer asked for in every format that it has; gives those, and why others were left out."""
    known = {peer.name: peer for peer in PEERS}
    if names is not None and (unknown := set(names) - set(known)):
        raise ValueError(f"peers: expected names out of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    named = [peer for peer in PEERS if names is None or peer.name in names or peer is REFERENCE]
    chosen = [(peer, "float32") for peer in named if "float32" in dtypes or peer in ALWAYS]
    chosen += [(peer, dtype) for dtype in dtypes if dtype != "float32" for peer in named if dtype in peer.dtypes]
    task = progress.add_task("setting up", total=len(chosen))
    peers: list[Peer] = []
    skipped: dict[str, str] = {}
    for peer, dtype in chosen:
        title = f"{peer.title}, {dtype}"
        progress.update(task, description=f"setting up {title}", refresh=True)
        if reason := peer.reason_to_skip(contest, dtype):
            skipped[title] = reason
        else:
            peers.append(peer(contest, dtype))
        progress.advance(task)
    progress.update(task, description="set up")
    return peers, skipped


def write_files(results: Results, options: Options, console: Console) -> None:
    """Writes what was asked for of JSON, plot and Markdown, and says so."""
    if options.json:
        options.json.write_text(json.dumps(results.to_json(), indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(results), encoding="utf-8")
    if options.plot:
        save_plot(results, options.plot)
    for path in filter(None, (options.json, options.markdown, options.plot)):
        console.print(f"wrote {path}")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<55}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, auto_refresh=False)


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
