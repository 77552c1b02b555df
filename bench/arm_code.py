"""The built aarch64 library as `arm_analysis.py` and `arm_count.py` read it: its code, and the loops that it names.

SQUEEZEBERT_HOT_LOOP (csrc/simd/hot_loop.h) leaves (8 bytes of address, name, zero byte) in section .debug_hot_loops.
A name may stand behind its loop, too, for the last, partial vector of a row. It counts for nothing there.
"""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

NARROW = r"sdot|smmla|bfmmla|s(mull|mlal)2?"  # products of 8 and 16 bits
ARITHMETIC = re.compile(rf"(f(mla|mls|mul|add|sub|abs|neg|min|max|rintn|cvtns|cvtn|div|sqrt)l?2?|{NARROW}|sadalp)$")
FMA = re.compile(rf"(f(mla|mls|madd|msub|nmadd|nmsub|mlal|mlal2|mlsl|mlsl2)|{NARROW})$")
LOAD = re.compile(r"ld(r|p|1|ur)[a-z]*$")
STORE = re.compile(r"st(r|p|1|ur)[a-z]*$")


@dataclass(frozen=True)
class Instruction:
    """One line of the disassembly; `target` is where a branch goes, else None."""

    address: int
    text: str
    target: int | None

    @property
    def name(self) -> str:
        return self.text.split()[0]

    @property
    def is_vector_arithmetic(self) -> bool:
        return bool(ARITHMETIC.match(self.name)) and bool(re.search(r"\.(4s|8h)\b", self.text))

    @property
    def is_fma(self) -> bool:
        return bool(FMA.match(self.name))

    @property
    def is_load(self) -> bool:
        return bool(LOAD.match(self.name))

    @property
    def is_store(self) -> bool:
        return bool(STORE.match(self.name))

    @property
    def is_spill(self) -> bool:
        return bool(re.search(r"\[(sp|x29)\b", self.text))


@dataclass(frozen=True)
class Loop:
    """A named loop of straight code: its body ends with the branch back."""

    name: str
    function: str
    body: list[Instruction]


class Code:
    """The code of a library, function by function, its named loops, and all (function, name) there are."""

    def __init__(self, library: Path, objdump: str) -> None:
        self.functions = _functions(library, objdump)
        self.loops: list[Loop] = []
        self.names: set[tuple[str, str]] = set()
        marks = _marks(library, objdump)
        for function, code in self.functions:
            here = [m for m in marks if code[0].address <= m[0] <= code[-1].address]
            found = [Loop(name, function, body) for at, name in here if (body := _straight_loop_at(code, at))]
            self.loops += {loop.body[0].address: loop for loop in found}.values()
            self.names |= {(function, name) for _, name in here}


def _functions(library: Path, objdump: str) -> list[tuple[str, list[Instruction]]]:
    """(name, instructions) of every function."""
    command = [objdump, "--disassemble", "--no-show-raw-insn", "--demangle", str(library)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = []
    for part in re.split(r"\n(?=[0-9a-f]+ <.*>:\n)", listing):
        head = re.match(r"[0-9a-f]+ <(.*)>:\n", part)
        if not head:
            continue
        code = []
        for line in re.finditer(r"^ *([0-9a-f]+):\t([^\n]*)", part, re.MULTILINE):
            text = re.sub(r"\s*//.*", "", line[2]).replace("\t", " ")
            branch = re.match(r"(?:b|b\.\w+|cbn?z|tbn?z) (?:.*, )?([0-9a-f]+) <", text)
            code.append(Instruction(int(line[1], 16), text, int(branch[1], 16) if branch else None))
        result.append((head[1], code))
    return result


def _marks(library: Path, objdump: str) -> list[tuple[int, str]]:
    """(address, name) of every SQUEEZEBERT_HOT_LOOP."""
    command = [objdump, "--full-contents", "--section=.debug_hot_loops", str(library)]
    dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^ [0-9a-f]+ ((?:[0-9a-f]{2,8} ){1,4})", dump, re.MULTILINE)
    data = bytes.fromhex("".join(lines))
    marks, position = [], 0
    while position < len(data):
        end = data.index(b"\0", position + 8)
        marks.append((struct.unpack_from("<Q", data, position)[0], data[position + 8 : end].decode()))
        position = end + 1
    return marks


def _straight_loop_at(code: list[Instruction], address: int) -> list[Instruction] | None:
    """The innermost loop round the address if no branch but the last is in it, else None."""
    index = {instruction.address: i for i, instruction in enumerate(code)}
    spans = [(index[c.target], i) for i, c in enumerate(code) if c.target in index and index[c.target] <= i]
    around = [(first, last) for first, last in spans if first <= index[address] <= last]
    if not around:
        return None
    first, last = min(around, key=lambda span: span[1] - span[0])
    body = code[first : last + 1]
    return body if all(i.target is None for i in body[:-1]) else None
