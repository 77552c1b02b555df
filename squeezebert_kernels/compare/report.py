"""The comparison as tables: for the terminal and for README."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .peers import OURS
from .results import Results, Row

# Narrow, so that a table fits a terminal of 80 columns.
COLUMNS = ("", "ms", "GFLOP/s", "% peak", "speed-up", "max diff")
LEGEND = (
    "ms: median of one pass. GFLOP/s: matrix products of the encoder over real tokens. % peak: of the FMA peak. "
    "speed-up: of squeezebert_kernels over this row. max diff: largest absolute difference to Hugging Face"
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
    return (
        f"{machine['CPU']}, {machine['ISA chosen']}, {results.threads} thread{'s' if results.threads > 1 else ''}, "
        f"{results.dtype}, {results.model}; float32 FMA peak {results.peak_gflops:.0f} GFLOP/s, "
        f"memory {results.bandwidth_gbytes:.0f} GB/s, both measured in the same run; "
        f"torch {machine['torch']}; {results.date}; `{results.command}`"
    )


def print_report(results: Results, console: Console) -> None:
    """A table for each workload, the fastest peer in bold, and what was left out."""
    for workload in results.workloads():
        rows = results.of(workload)
        if not rows:
            continue
        fastest = min(rows, key=lambda row: row.milliseconds)
        title = describe_workload(results, workload)
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for column in COLUMNS:
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for row in rows:
            table.add_row(*cells(results, row), style="bold" if row is fastest else None)
        console.print(table)
    console.print(LEGEND)
    console.print(conditions(results))
    for name, reason in results.skipped.items():
        console.print(f"skipped {name}: {reason}")


def markdown(results: Results) -> str:
    """The same tables in Markdown, in one: a row for each peer of each workload."""
    lines = [f"| batch x tokens | {' | '.join(COLUMNS)} |", "|---|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    for workload in results.workloads():
        for index, row in enumerate(results.of(workload)):
            first = workload if index == 0 else ""
            text = [f"**{cell}**" if row.peer == OURS.name and cell else cell for cell in cells(results, row)]
            lines.append(f"| {first} | {' | '.join(text)} |")
    notes = [describe_workload(results, name) for name in results.workloads() if len(set(results.lengths[name])) > 1]
    return "\n".join([*lines, "", *(f"{note}.\n" for note in [*notes, LEGEND]), conditions(results) + ".", ""])


def cells(results: Results, row: Row) -> tuple[str, ...]:
    """A row's printed values, in the order of COLUMNS."""
    speedup = results.speedup(row, OURS.name)
    return (
        row.title,
        f"{row.milliseconds:.2f}" if row.milliseconds < 10 else f"{row.milliseconds:.1f}",
        f"{row.gflops:.1f}",
        f"{100 * row.share_of_peak:.1f}",
        "" if speedup is None or row.peer == OURS.name else f"{speedup:.2f}x",
        "n/a" if row.max_difference is None else f"{row.max_difference:.1e}",
    )
