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
    "ms: median of one pass. GFLOP/s: matrix products of the encoder over real tokens. % peak: of the FMA peak, "
    "measured in every round. speed-up: of squeezebert_kernels over this row. max diff: largest absolute difference "
    "to Hugging Face"
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
    """The comparison in one Markdown table: a column for each workload, a row for each peer, our figures below."""
    workloads = results.workloads()
    titles = {row.peer: row.title for row in results.rows}
    by_place = {(row.peer, row.workload): row for row in results.rows}

    def line(title: str, values: list[str]) -> str:
        return f"| {' | '.join([title, *values])} |"

    lines = [line("ms (our speed-up)", workloads), f"|---|{'--:|' * len(workloads)}"]
    for peer, title in titles.items():
        if peer != OURS.name:
            rows = [by_place[peer, workload] for workload in workloads]
            lines.append(line(title, [_time_and_speedup(results, row) for row in rows]))
    ours = [by_place[OURS.name, workload] for workload in workloads] if OURS.name in titles else []
    if ours:
        lines.append(line(f"**{OURS.title}**", [f"**{milliseconds(row)}**" for row in ours]))
        lines.append(line("its GFLOP/s", [f"{row.gflops:.0f}" for row in ours]))
        lines.append(line("its share of the FMA peak", [f"{row.share_of_peak:.0%}" for row in ours]))
        lines.append(line("its largest difference to Hugging Face", [f"{row.max_difference:.0e}" for row in ours]))
    notes = [describe_workload(results, name) for name in workloads if len(set(results.lengths[name])) > 1]
    return "\n".join([*lines, "", *(f"{note}.  " for note in notes), f"{conditions(results)}.", ""])


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
