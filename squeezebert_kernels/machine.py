"""What this machine and this installation are: for `info`, and for whoever reads a measurement later."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

import squeezebert_kernels


def cpu_model() -> str:
    """The processor's name as the kernel reports it, else its architecture."""
    names = _cpu_info()
    # x86 says "model name"; Arm kernels name the implementer and part number only.
    if "model name" in names:
        return names["model name"]
    if "CPU part" in names:
        return f"{platform.machine()} implementer {names.get('CPU implementer', '?')} part {names['CPU part']}"
    return platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """The instructions that the kernel reports, by its names: "avx512_vnni", on Arm "asimddp"."""
    names = _cpu_info()
    return set((names.get("flags") or names.get("Features", "")).split())


def _cpu_info() -> dict[str, str]:
    """The fields of the last processor in /proc/cpuinfo; none where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in fields.items()}


def describe() -> dict[str, str]:
    """Version, CPU, ISAs found and chosen, threads, torch: one printable line each.

    Raises ImportError when the compiled module is missing, RuntimeError when SQUEEZEBERT_FORCE_ISA cannot be had.
    """
    from squeezebert_kernels import _native

    elsewhere = ("chosen", "forced", "of another instruction set")
    left_out = {name: why for name, why in _native.product_reasons().items() if why not in elsewhere}
    return {
        "squeezebert_kernels": f"{squeezebert_kernels.__version__} (compiled library {_native.version()})",
        "CPU": cpu_model(),
        "ISAs found": ", ".join(_native.isas()),
        "ISA chosen": _native.active_isa(),
        "products found": ", ".join(_native.products()),
        "products chosen": ", ".join(map(_native.active_product, _native.formats())),
        "products left out": "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "none",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
