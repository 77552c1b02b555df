"""`make arm-count`: how many instructions the NEON kernels execute for SqueezeBERT's encoder, and which.

Runs build/aarch64/arm_encoder under QEMU with the plugin of arm_count.c: 1 x 128 tokens, one thread, on a Neoverse N1,
which has no SVE, so that everyone's vectors have 128 bits; in float32, and in the formats below. With --peers (`make
arm-count-peers`) it does the same to arm_peers.py in aarch64 Python. Prints millions of instructions.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from arm_code import Code, Instruction

CORE = "neoverse-n1"
# Beside float32. The core that QEMU has everything on has float16 arithmetic, dotprod and i8mm; bfmmla is for cores
# where it pays, by their number, which that one is not.
FORMATS = [("float16", CORE), ("bfloat16", CORE), ("int8", CORE), ("int8", "max")]
PEERS = [
    ("SqueezeBERT", "squeezebert", "ONNX Runtime", "onnxruntime"),
    ("SqueezeBERT", "squeezebert", "PyTorch", "pytorch"),
    ("SqueezeBERT", "squeezebert", "PyTorch with XNNPACK", "xnnpack"),
    ("SqueezeBERT", "squeezebert", "XNNPACK, the six products alone", "xnnpack_products"),
    ("BERT-base", "bert", "ONNX Runtime", "onnxruntime"),
    ("BERT-base", "bert", "PyTorch", "pytorch"),
    ("BERT-base", "bert", "PyTorch with XNNPACK", "xnnpack"),
    ("BERT-base", "bert", "XNNPACK, the six products alone", "xnnpack_products"),
]


@dataclass(frozen=True)
class Count:
    """Executed instructions, and how many of them are floating-point multiply-adds."""

    instructions: int
    multiply_adds: int


def counted(command: list[str]) -> tuple[dict[int, Count], str]:
    """Runs what prints "region LAYERS" ahead of the plugin's lines: (what each region executed, all of the report)."""
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}\nexpected to succeed, got status {run.returncode} and\n{run.stderr}")
    lines = re.findall(r"^region (\d+)\n(?:.*\n)*?executed (\d+) multiply-adds (\d+)", run.stderr, re.MULTILINE)
    return {int(layers): Count(int(all_), int(fma)) for layers, all_, fma in lines}, run.stderr


def parts(code: Code, base: int, blocks: str) -> dict[str, Counter[str]]:
    """Executed instructions by kind, of every named loop and of each function round them.

    `blocks` has lines of address, instructions, times executed; `base` is where the library was loaded.
    """
    place: dict[int, tuple[str, Instruction]] = {}
    for function, instructions in code.functions:
        name = re.sub(r"<.*", "", re.sub(r"\(.*", "", function.replace("(anonymous namespace)::", ""))).split("::")[-1]
        place.update((i.address, (name, i)) for i in instructions)
    for loop in code.loops:
        place.update((i.address, (loop.name, i)) for i in loop.body)
    result: dict[str, Counter[str]] = defaultdict(Counter)
    for line in blocks.splitlines():
        address, length, times = (int(number, 0) for number in line.split())
        for at in range(address - base, address - base + 4 * length, 4):
            part, instruction = place.get(at, ("outside the library", None))
            result[part][kind(instruction) if instruction else "rest"] += times
    return result


def kind(i: Instruction) -> str:
    if i.is_fma:
        return "FMA"
    return "load" if i.is_load else "store" if i.is_store else "other vector" if re.search(r"\bv\d", i.text) else "rest"


def print_parts(found: dict[str, Counter[str]]) -> None:
    """The table of parts, largest first; those below a thousandth in one row."""
    kinds = ["FMA", "other vector", "load", "store", "rest"]
    whole = sum(sum(counts.values()) for counts in found.values())
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for part, counts in found.items():
        rows[part if 1000 * sum(counts.values()) >= whole else "all else"].update(counts)
    print("\n| one layer, by part |", " | ".join(["instructions", *kinds]), "|\n" + "|---" * (len(kinds) + 2) + "|")
    for part, counts in sorted(rows.items(), key=lambda row: (row[0] == "all else", -sum(row[1].values()))):
        figures = (f"{number / 1e6:.2f}" for number in (sum(counts.values()), *(counts[k] for k in kinds)))
        print(f"| {part} |", " | ".join(figures), "|")


def machine(root: Path, folder: Path) -> None:
    """Makes `folder` what `root` is, with the files by which Linux says that the core is a Neoverse N1.

    Libraries choose kernels by them, and some do not start without: QEMU shows the host's.
    """
    features = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
    cpu = "sys/devices/system/cpu"
    files = {
        "proc/cpuinfo": f"processor\t: 0\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n",
        **{f"{cpu}/{name}": "0\n" for name in ("possible", "present", "online")},
        f"{cpu}/cpu0/regs/identification/midr_el1": "0x00000000413fd0c1\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in ("usr", "lib", "etc"):
        (folder / name).symlink_to(root / name)


def print_totals(model: str, who: str, count: dict[int, Count], ours: dict[int, Count] | None = None) -> None:
    """A row: what one layer and what 12 execute, the share of FMAs, and how much of a peer's `ours` are."""
    cells = [f"{model}, {who}"]
    for layers in (1, 12):
        found = count[layers]
        ratio = f"{ours[layers].instructions / found.instructions:.2f}" if ours else ""
        cells += [f"{found.instructions / 1e6:.1f}", f"{found.multiply_adds / found.instructions:.1%}", ratio]
    print("|", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="CMake's build folder for aarch64, with arm_count.so and arm_encoder")
    parser.add_argument("--objdump", default="aarch64-linux-gnu-objdump")
    parser.add_argument("--libc", type=Path, default=Path("/usr/aarch64-linux-gnu"), help="arm_encoder's")
    parser.add_argument("--peers", type=Path, help="ROOT/usr/bin/python3.N for aarch64: count the peers too; slow")
    parser.add_argument("--site", default="", help="its PYTHONPATH: torch, transformers and onnxruntime for aarch64")
    parser.add_argument("--graphs", type=Path, help="what `arm_peers.py export` wrote")
    arguments = parser.parse_args()
    qemu = ["qemu-aarch64", "-cpu", CORE, "-plugin"]
    library = ["-L", str(arguments.libc)]
    plugin = arguments.build / "arm_count.so"
    with tempfile.TemporaryDirectory() as temporary:
        blocks, root = Path(temporary, "blocks"), Path(temporary, "root")
        encoder = arguments.build / "arm_encoder"
        ours, report = counted([*qemu, f"{plugin},blocks={blocks}", *library, str(encoder)])
        print("| | one layer | FMA | this library takes | 12 layers | FMA | this library takes |")
        print("|---" * 7 + "|")
        print_totals("SqueezeBERT", "this library", ours)
        for name, core in FORMATS:
            count, _ = counted(["qemu-aarch64", "-cpu", core, "-plugin", str(plugin), *library, str(encoder), name])
            print_totals("SqueezeBERT", f"this library, {name} on {core}", count)
        if arguments.peers:
            machine(arguments.peers.resolve().parents[2], root)
            environment = [f"PYTHONPATH={arguments.site}", "OMP_NUM_THREADS=1", "PYTHONDONTWRITEBYTECODE=1"]
            python = [*qemu, str(plugin), "-L", str(root), *(word for e in environment for word in ("-E", e))]
            python += [str(arguments.peers), str(Path(__file__).with_name("arm_peers.py"))]
            for model_title, model, peer_title, peer in PEERS:
                count, _ = counted([*python, peer, model, str(arguments.graphs)])
                print_totals(model_title, peer_title, count, ours)
        one_layer = blocks.read_text().split("region\n")[1]
    base = int(re.findall(r"^library (0x\w+)$", report, re.MULTILINE)[0], 0)
    print_parts(parts(Code(arguments.build / "lib/libsqueezebert.so", arguments.objdump), base, one_layer))


if __name__ == "__main__":
    main()
