"""In which order a compiled kernel adds up, read out of its intermediate code: what decides the bits of its results.

Two rows of the table of block sizes give the same bits where these agree: the kind of matrix instruction of each
product, and for each sum (or maximum) over a tile, how the elements of a row lie in registers, threads and warps.
"""

from __future__ import annotations

import re

PRODUCTS = {"warp_group_dot": "wgmma", "tc_gen5_mma": "tcgen05", "tt.dot ": "mma.sync or fma"}


def orders(ttgir: str) -> set[str]:
    """The kinds of products and the layouts of sums in Triton's GPU code, as text."""
    layouts = dict(re.findall(r"^#(\w+) = (#ttg\.\w+<\{.*\}>)", ttgir, re.MULTILINE))
    found = {f"product: {kind}" for mnemonic, kind in PRODUCTS.items() if mnemonic in ttgir}
    reductions = re.findall(
        r'"tt\.reduce"\(%\S+\) <\{axis = (\d+) : i32\}>.*?\}\) : \(tensor<([\dx]+)x\w+, #(\w+)>\)', ttgir, re.DOTALL
    )
    if ttgir.count('"tt.reduce"') != len(reductions):
        raise ValueError("ttgir: expected reductions of one tensor with a named layout, got others")
    for axis, shape, name in reductions:
        length = shape.split("x")[int(axis)]
        found.add(f"sum of {length}: {_along(layouts[name], int(axis))}")
    return found


def _along(layout: str, axis: int) -> str:
    """What a layout says of one axis of a tile."""
    kind = layout[: layout.index("<")]
    if kind == "#ttg.linear":  # bases: where each bit of the register, thread and warp number leads
        bases = re.findall(r"(register|lane|warp) = (\[(?:\[[^]]*\](?:, )?)*\])", layout)
        steps = {
            name: [
                step for step in (int(basis.split(",")[axis]) for basis in re.findall(r"\[([\d, ]+)\]", text)) if step
            ]
            for name, text in bases
        }
        return f"{kind} {steps}"
    fields = {name: text.split(", ") for name, text in re.findall(r"(\w+) = \[([\d, ]*)\]", layout)}
    if kind == "#ttg.nvidia_mma":
        (version,) = re.findall(r"versionMajor = \d+", layout)
        return f"{kind} {version}, warpsPerCTA {fields['warpsPerCTA'][axis]}"
    if kind == "#ttg.blocked":
        parts = ("sizePerThread", "threadsPerWarp", "warpsPerCTA")
        return f"{kind} " + ", ".join(f"{part} {fields[part][axis]}" for part in parts)
    raise ValueError(f"ttgir: expected a blocked, mma or linear layout of a sum, got {layout}")
