"""The comparison as one picture: a group of bars for each workload, and the roofline of the machine."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from .peers import OURS
from .report import conditions, milliseconds
from .results import Results

WIDTH, HEIGHT = 14.0, 6.0


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
    """Writes the figure; the format follows the file's ending."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (bars, roofline) = plt.subplots(1, 2, figsize=(WIDTH, HEIGHT), width_ratios=(3, 2))
    colors = _colors(results, plt.get_cmap("tab10"))
    _draw_bars(bars, results, colors)
    _draw_roofline(roofline, results, colors)
    handles, labels = bars.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, bbox_to_anchor=(0.5, 0.05))
    caption = textwrap.fill(conditions(results).replace("`", ""), 220)
    figure.text(0.5, 0.03, caption, ha="center", va="center", fontsize=6.5)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _colors(results: Results, palette: Any) -> dict[str, Any]:
    """A color for each peer; ours is the dark one."""
    others = [name for name in dict.fromkeys(row.peer for row in results.rows) if name != OURS.name]
    return {**{name: palette(index) for index, name in enumerate(others)}, OURS.name: "black"}


def _draw_bars(axes: Any, results: Results, colors: dict[str, Any]) -> None:
    """Real tokens per second: one scale for short and long workloads, and for networks of different cost."""
    titles = {row.peer: row.title for row in results.rows}
    width = 0.85 / max(len(titles), 1)
    for slot, (peer, title) in enumerate(titles.items()):
        rows = [row for row in results.rows if row.peer == peer]
        places = [results.workloads().index(row.workload) + (slot - (len(titles) - 1) / 2) * width for row in rows]
        rates = [1e3 * row.tokens / row.milliseconds for row in rows]
        drawn = axes.bar(places, rates, width, label=title, color=colors[peer])
        times = [f"{milliseconds(row)} ms" for row in rows]
        axes.bar_label(drawn, labels=times, rotation=90, fontsize=6, padding=2)
    axes.margins(y=0.15)
    axes.set_xticks(range(len(results.workloads())), results.workloads())
    axes.set_xlabel("sequences x tokens")
    axes.set_ylabel("real tokens per second")
    axes.set_title("Whole model: higher is better")


def _draw_roofline(axes: Any, results: Results, colors: dict[str, Any]) -> None:
    intensities = [row.intensity for row in results.rows]
    ridge = results.peak_gflops / results.bandwidth_gbytes
    low, high = min(*intensities, ridge) / 2, max(*intensities, ridge) * 2
    axes.plot([low, ridge, high], [low * results.bandwidth_gbytes, *[results.peak_gflops] * 2], color="grey")
    axes.annotate("measured FMA peak", (high, results.peak_gflops), ha="right", va="bottom", fontsize=7, color="grey")
    for row in results.rows:
        marker = "*" if row.peer == OURS.name else "o"
        axes.scatter(row.intensity, row.gflops, color=colors[row.peer], marker=marker, s=60 if marker == "*" else 18)
    for workload in results.workloads():
        rows = [row for row in results.of(workload) if row.max_difference is not None]
        if rows:
            axes.annotate(
                workload, (rows[0].intensity, min(row.gflops for row in rows)), (0, -12), textcoords="offset points",
                ha="center", fontsize=7,
            )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("FLOP per byte that must move (weights and activations)")
    axes.set_ylabel("GFLOP/s")
    axes.set_title("Roofline")
