"""The comparison as one picture: a group of bars for each workload, and the roofline of the machine."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from .peers import OURS
from .report import conditions, milliseconds
from .results import Results

WIDTH, HEIGHT, ROW_HEIGHT = 14.0, 6.0, 4.0
MARKERS = {"float32": "*", "float16": "v", "bfloat16": "s", "int8": "D"}


def check_plot(path: Path) -> None:
    """Raises ImportError without matplotlib, ValueError for an ending that it does not write."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise ImportError("plot: needs matplotlib, which is not installed") from error
    endings = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in endings:
        raise ValueError(f"plot: expected a file that ends in .{', .'.join(endings)}, got {path}")


def save_plot(results: Results, path: Path) -> None:
    """Writes the figure; the format follows the file's ending. A row of bars for each number format, one roofline."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    dtypes = results.ran()
    figure = plt.figure(figsize=(WIDTH, HEIGHT + ROW_HEIGHT * (len(dtypes) - 1)))
    grid = figure.add_gridspec(len(dtypes), 2, width_ratios=(3, 2))
    colors = _colors(results, plt.get_cmap("tab10"))
    for index, dtype in enumerate(dtypes):
        _draw_bars(figure.add_subplot(grid[index, 0]), results, dtype, colors)
    _draw_roofline(figure.add_subplot(grid[:, 1]), results, colors)
    titles = {row.peer: row.title for row in results.rows}
    handles = [plt.Rectangle((0, 0), 1, 1, color=colors[peer]) for peer in titles]
    inch = 1 / figure.get_figheight()
    place = (0.5, 0.3 * inch)
    figure.legend(handles, titles.values(), loc="lower center", ncols=4, frameon=False, bbox_to_anchor=place)
    caption = textwrap.fill(conditions(results).replace("`", ""), 220)
    figure.text(0.5, 0.2 * inch, caption, ha="center", va="center", fontsize=6.5)
    figure.tight_layout(rect=(0, 1.1 * inch, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _colors(results: Results, palette: Any) -> dict[str, Any]:
    """A color for each peer, in every format; ours is the dark one."""
    others = [name for name in dict.fromkeys(row.peer for row in results.rows) if name != OURS.name]
    return {**{name: palette(index) for index, name in enumerate(others)}, OURS.name: "black"}


def _draw_bars(axes: Any, results: Results, dtype: str, colors: dict[str, Any]) -> None:
    """Real tokens per second: one scale for short and long workloads, and for networks of different cost."""
    peers = list(dict.fromkeys(row.peer for row in results.rows if row.dtype == dtype))
    width = 0.85 / max(len(peers), 1)
    for slot, peer in enumerate(peers):
        rows = [row for row in results.rows if (row.peer, row.dtype) == (peer, dtype)]
        places = [results.workloads().index(row.workload) + (slot - (len(peers) - 1) / 2) * width for row in rows]
        rates = [1e3 * row.tokens / row.milliseconds for row in rows]
        drawn = axes.bar(places, rates, width, color=colors[peer])
        times = [f"{milliseconds(row)} ms" for row in rows]
        axes.bar_label(drawn, labels=times, rotation=90, fontsize=6, padding=2)
    axes.margins(y=0.15)
    axes.set_xticks(range(len(results.workloads())), results.workloads())
    axes.set_xlabel("sequences x tokens")
    axes.set_ylabel("real tokens per second")
    axes.set_title(f"Whole model, {dtype}: higher is better")


def _draw_roofline(axes: Any, results: Results, colors: dict[str, Any]) -> None:
    peaks = {dtype: results.peak_gflops(dtype) for dtype in results.ran()}
    ridges = {dtype: peak / results.bandwidth_gbytes for dtype, peak in peaks.items()}
    intensities = [row.intensity for row in results.rows]
    low, high = min(*intensities, *ridges.values()) / 2, max(*intensities, *ridges.values()) * 2
    for dtype, peak in peaks.items():
        axes.plot([low, ridges[dtype], high], [low * results.bandwidth_gbytes, peak, peak], color="grey", linewidth=1)
    for names, peak in _roofs(peaks):
        axes.annotate(f"measured peak, {names}", (high, peak), ha="right", va="bottom", fontsize=7, color="grey")
    for row in results.rows:
        size = 60 if row.peer == OURS.name else 18
        axes.scatter(row.intensity, row.gflops, color=colors[row.peer], marker=MARKERS[row.dtype], s=size)
    for workload in results.workloads():
        if ours := results.find(workload, OURS.name, "float32"):
            place = (ours.intensity, ours.gflops)
            axes.annotate(workload, place, (0, 8), textcoords="offset points", ha="center", fontsize=7)
    for dtype in results.ran():
        axes.scatter([], [], color="black", marker=MARKERS[dtype], s=60, label=dtype)
    axes.legend(loc="lower right", frameon=False, fontsize=7)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("operations per byte that must move (weights and activations)")
    axes.set_ylabel("GFLOP/s")
    axes.set_title("Roofline")


def _roofs(peaks: dict[str, float]) -> list[tuple[str, float]]:
    """The formats by their peaks; those that multiply at one rate, within what a measurement can tell, under one."""
    roofs: list[tuple[str, float]] = []
    for dtype, peak in sorted(peaks.items(), key=lambda item: item[1]):
        if roofs and peak < 1.05 * roofs[-1][1]:
            roofs[-1] = (f"{roofs[-1][0]}, {dtype}", peak)
        else:
            roofs.append((dtype, peak))
    return roofs
