"""Parts of Markdown files that scripts write."""

from __future__ import annotations

from pathlib import Path


def splice(path: Path, part: str, text: str) -> None:
    """Puts `text` between the lines `<!-- PART: begin -->` and `<!-- PART: end -->` of a file.

    Raises ValueError when they are not there, once each, in order.
    """
    path.write_text(spliced(path.read_text(encoding="utf-8"), part, text, path.name), encoding="utf-8")


def spliced(document: str, part: str, text: str, name: str) -> str:
    """`document` with that; name: what to call it in the error."""
    begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->\n"
    before, found, rest = document.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended or begin in rest or end in after:
        raise ValueError(f"{name}: expected {begin.strip()} and then {end.strip()}, once each")
    return f"{before}{begin}{text}{end}{after}"
