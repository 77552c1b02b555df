"""Runs `compare` on this machine (keep it quiet) and puts the table it makes into README.md, between two markers.

Takes the options of `python -m squeezebert_kernels compare`. The plot and all figures go to docs/compare.png and
docs/compare.json, which README shows and points to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from squeezebert_kernels.cli import main

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- compare: begin -->\n", "<!-- compare: end -->\n"


def splice(readme: str, table: str) -> str:
    """`readme` with `table` between the markers; raises ValueError when they are not there, once each, in order."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"README.md: expected {BEGIN.strip()} and then {END.strip()}, once each")
    return f"{before}{BEGIN}{table}{END}{after}"


def update(options: list[str]) -> int:
    """Runs the comparison; gives its exit status. README changes only when it is 0."""
    os.chdir(ROOT)
    readme, table = Path("README.md"), Path("docs/compare.md")
    splice(readme.read_text(encoding="utf-8"), "")  # complains now, not after two minutes
    table.parent.mkdir(exist_ok=True)
    files = ["--json", "docs/compare.json", "--plot", "docs/compare.png", "--markdown", str(table)]
    status = main(["compare", *options, *files])
    if status == 0:
        text = splice(readme.read_text(encoding="utf-8"), table.read_text(encoding="utf-8"))
        readme.write_text(text, encoding="utf-8")
        table.unlink()
    return status


if __name__ == "__main__":
    sys.exit(update(sys.argv[1:]))
