"""Runs `compare` on this machine (keep it quiet) and puts the table it makes into README.md, between two markers.

Takes the options of `python -m squeezebert_kernels compare`. The plot and all figures go to docs/compare.png and
docs/compare.json, which README shows and points to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from markers import splice, spliced
from squeezebert_kernels.cli import main

ROOT = Path(__file__).resolve().parent.parent
PART = "compare"
# What README shows; float16 is for who asks.
DTYPES = "float32,bfloat16,int8"


def update(options: list[str]) -> int:
    """Runs the comparison; gives its exit status. README changes only when it is 0."""
    os.chdir(ROOT)
    readme, table = Path("README.md"), Path("docs/compare.md")
    spliced(readme.read_text(encoding="utf-8"), PART, "", readme.name)  # complains now, not after ten minutes
    table.parent.mkdir(exist_ok=True)
    files = ["--json", "docs/compare.json", "--plot", "docs/compare.png", "--markdown", str(table)]
    status = main(["compare", "--dtype", DTYPES, *options, *files])
    if status == 0:
        splice(readme, PART, table.read_text(encoding="utf-8"))
        table.unlink()
    return status


if __name__ == "__main__":
    sys.exit(update(sys.argv[1:]))
