"""The comparison as tables: for the terminal and for README."""

from __future__ import annotations

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .peers import OURS, BertBase
from .results import Results, Row

# Narrow, so that a table fits a terminal of 80 columns.
COLUMNS = ("", "ms", "GFLOP/s", "% peak", "speed-up", "max diff")
LEGEND = (
    "ms: median of one pass. GFLOP/s: matrix products of the encoder over real tokens, in any format. % peak: of the "
    "format's multiply-add peak, measured in every round. speed-up: of squeezebert_kernels in that format over this "
    "row. max diff: largest absolute difference to Hugging Face in float32"
)


def describe_workload(results: Results, workload: str) -> str:
    """`8x128: 1024 tokens`, or for the text its lengths and the padded size."""
    lengths = results.lengths[workload]
    if len(set(lengths)) == 1:
        return f"{workload}: {len(lengths)} x {lengths[0]} tokens"
    real, padded = sum(lengths), len(lengths) * max(lengths)
    sizes = ", ".join(map(str, lengths))
    return f"{workload}: sentences of {sizes} tokens, {real} of {padded} in the padded batch"


def conditions(results: Results) -> str:
    """One sentence that says on what and when: figures without it mean nothing."""
    machine = results.machine
    peaks = ", ".join(f"{dtype} {results.peak_gflops(dtype):.0f}" for dtype in results.ran())
    return (
        f"{machine['CPU']}, {machine['ISA chosen']}, {results.threads} thread{'s' if results.threads > 1 else ''}, "
        f"{results.model}; multiply-add peak {peaks} GFLOP/s, memory {results.bandwidth_gbytes:.0f} GB/s, measured in "
        f"the same run; torch {machine['torch']}; {results.date}; `{results.command}`"
    )


def print_report(results: Results, console: Console) -> None:
    """A table for each workload, each format's fastest peer in bold, and what was left out."""
    for workload in results.workloads():
        if not results.of(workload):
            continue
        title = describe_workload(results, workload)
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for column in COLUMNS:
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for dtype in results.ran():
            rows = [row for row in results.of(workload) if row.dtype == dtype]
            if len(results.ran()) > 1:
                table.add_row(dtype, style="italic")
            fastest = min(rows, key=lambda row: row.milliseconds, default=None)
            for row in rows:
                table.add_row(*cells(results, row), style="bold" if row is fastest else None)
        console.print(table)
    console.print(LEGEND)
    console.print(conditions(results))
    for name, reason in results.skipped.items():
        console.print(f"skipped {name}: {reason}")


def markdown(results: Results) -> str:
    """The comparison in one Markdown table: a column for each workload, a row for each peer, by formats, our figures
    below each."""
    workloads = results.workloads()
    lines = [_line("ms (our speed-up)", workloads), f"|---|{'--:|' * len(workloads)}"]
    for dtype in results.ran():
        if len(results.ran()) > 1:
            lines.append(_line(f"*{dtype}*", [""] * len(workloads)))
        lines += _section(results, dtype)
    notes = [describe_workload(results, name) for name in workloads if len(set(results.lengths[name])) > 1]
    for reason in dict.fromkeys(results.skipped.values()):
        titles = [title for title, other in results.skipped.items() if other == reason]
        notes.append(f"Left out: {'; '.join(titles)}: {reason}")
    return "\n".join([*lines, "", *(f"{note}.  " for note in notes), f"{conditions(results)}.", ""])


def _section(results: Results, dtype: str) -> list[str]:
    """The lines of one format: every peer, then ours with what it is of the machine and over the others."""
    workloads = results.workloads()
    titles = {row.peer: row.title for row in results.rows if row.dtype == dtype}

    def line(title: str, peer: str, cell: Callable[[Row], str]) -> list[str]:
        rows = [results.find(workload, peer, dtype) for workload in workloads]
        return [_line(title, [cell(row) for row in rows if row is not None])] if None not in rows else []

    def over(peer: str, title: str) -> list[str]:
        """How many times faster ours in this format is than `peer` in float32."""
        pairs = [(results.find(name, peer, "float32"), results.find(name, OURS.name, dtype)) for name in workloads]
        ratios = [theirs.milliseconds / ours.milliseconds for theirs, ours in pairs if theirs and ours]
        if dtype == "float32" or len(ratios) < len(workloads):
            return []
        return [_line(f"over {title}, float32", [f"{ratio:.2f}x" for ratio in ratios])]

    lines = []
    for peer, title in titles.items():
        if peer != OURS.name:
            lines += line(title, peer, lambda row: _time_and_speedup(results, row))
    if OURS.name in titles:
        lines += line(f"**{OURS.title}**", OURS.name, lambda row: f"**{milliseconds(row)}**")
        lines += over(OURS.name, "ours") + over(BertBase.name, BertBase.title)
        lines += line("its GFLOP/s", OURS.name, lambda row: f"{row.gflops:.0f}")
        lines += line("its share of the multiply-add peak", OURS.name, lambda row: f"{row.share_of_peak:.0%}")
        lines += line("its largest difference to Hugging Face", OURS.name, lambda row: f"{row.max_difference:.0e}")
    return lines


def _line(title: str, values: list[str]) -> str:
    return f"| {' | '.join([title, *values])} |"


def _time_and_speedup(results: Results, row: Row) -> str:
    speedup = results.speedup(row, OURS.name)
    return milliseconds(row) if speedup is None else f"{milliseconds(row)} ({speedup:.2f}x)"


def milliseconds(row: Row) -> str:
    """As 9.87, 98.7, 987 or 9876."""
    decimals = 2 if row.milliseconds < 10 else 1 if row.milliseconds < 100 else 0
    return f"{row.milliseconds:.{decimals}f}"


def cells(results: Results, row: Row) -> tuple[str, ...]:
    """A row's printed values, in the order of COLUMNS."""
    speedup = results.speedup(row, OURS.name)
    return (
        row.title,
        milliseconds(row),
        f"{row.gflops:.1f}",
        f"{100 * row.share_of_peak:.1f}",
        "" if speedup is None or row.peer == OURS.name else f"{speedup:.2f}x",
        "n/a" if row.max_difference is None else f"{row.max_difference:.1e}",
    )
